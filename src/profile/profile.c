/* The public malloc family of libbyssal_profile.so: counts the bytes that each thread allocates,
 * notes a sample with its call stack now and then, and leaves the rest to the allocator, whose
 * functions have other names here. Also the beginning, the forks and the end of the process. lib.rs
 * is the map.
 *
 * Settings, in the environment: BYSSAL_PROFILE, how the names of the files begin; without it
 * nothing is noted. BYSSAL_PROFILE_MEAN, bytes between samples. BYSSAL_PROFILE_SEED, for tests. */
#define _GNU_SOURCE
#include "library.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#define PUBLIC __attribute__((visibility("default")))
#define RARE __attribute__((noinline, cold))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* The allocator's own. */
HIDDEN void *byssal_malloc(size_t);
HIDDEN void *byssal_calloc(size_t, size_t);
HIDDEN void *byssal_realloc(void *, size_t);
HIDDEN void *byssal_reallocarray(void *, size_t, size_t);
HIDDEN void byssal_free(void *);
HIDDEN void byssal_free_sized(void *, size_t);
HIDDEN void byssal_free_aligned_sized(void *, size_t, size_t);
HIDDEN void *byssal_aligned_alloc(size_t, size_t);
HIDDEN void *byssal_memalign(size_t, size_t);
HIDDEN int byssal_posix_memalign(void **, size_t, size_t);
HIDDEN void *byssal_valloc(size_t);
HIDDEN void *byssal_pvalloc(size_t);

/* entry.rs. */
struct sample {
	uintptr_t address;
	size_t size;
	uint32_t site;
};
enum { FILTER_BITS = 18 };
HIDDEN extern unsigned char byssal_profile_filters[2][1 << FILTER_BITS];
HIDDEN void byssal_profile_begin(uint64_t mean, uint64_t seed);
HIDDEN size_t byssal_profile_distance(void);
HIDDEN void byssal_profile_allocated(uintptr_t, size_t, const uintptr_t *stack, size_t depth);
HIDDEN int byssal_profile_freed(uintptr_t, struct sample *);
HIDDEN void byssal_profile_restore(const struct sample *);
HIDDEN void byssal_profile_reset(uint64_t seed);

/* The library is there when the program starts: both libcs have room for this model then. */
#define THREAD static __thread __attribute__((tls_model("initial-exec")))
/* Bytes that this thread may still allocate without a sample. */
THREAD size_t limit;
/* Whether limit was drawn by lot: a thread begins with 0. */
THREAD char drawn;
/* Whether this thread is at work here, or forks: what it allocates meanwhile is no sample. */
THREAD char busy;

/* More than a thread ever allocates. */
#define NEVER (SIZE_MAX / 4)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* BEFORE the constructor, OFF without the setting, DONE when the last file is written. Each thread
 * reads it relaxed: who sees an older value does without a sample, or takes one that nobody writes.
 * */
static enum { BEFORE, OFF, ON, DONE } phase;
/* The process that phase is of: the child of a vfork, or of a fork that ran no handlers, is
 * another. */
static pid_t process;
static uint64_t seed;

HIDDEN void *byssal_profile_map(size_t len)
{
	void *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? 0 : at;
}

/* This thread at work here: no signal's handler interrupts it, so none jumps away with the lock, or
 * comes back for it. */
struct work {
	int saved_errno;
	sigset_t signals;
};

static void begin_work(struct work *work)
{
	sigset_t all;
	work->saved_errno = errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &work->signals);
	busy = 1;
}

static void end_work(struct work *work)
{
	busy = 0;
	pthread_sigmask(SIG_SETMASK, &work->signals, 0);
	errno = work->saved_errno;
}

static int is_on(void)
{
	return __atomic_load_n(&phase, __ATOMIC_RELAXED) == ON && getpid() == process;
}

/* Samples. */

enum { MOST_ADDRESSES = 128 };

struct stack {
	size_t depth;
	uintptr_t addresses[MOST_ADDRESSES];
};

/* An address within the instruction: a call's is before the one to return to. */
static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *data)
{
	struct stack *stack = data;
	int is_before = 0;
	uintptr_t at = _Unwind_GetIPInfo(context, &is_before);
	if (!at || stack->depth == MOST_ADDRESSES) return _URC_END_OF_STACK;
	stack->addresses[stack->depth++] = at - !is_before;
	return _URC_NO_REASON;
}

/* Notes the block as a sample. Walks without the lock: the walk may take the dynamic linker's,
 * whose holder may allocate. */
static RARE void note(void *p, size_t n)
{
	struct work work;
	struct stack stack;
	stack.depth = 0;
	begin_work(&work);
	_Unwind_Backtrace(step, &stack);
	pthread_mutex_lock(&lock);
	byssal_profile_allocated((uintptr_t)p, n, stack.addresses, stack.depth);
	limit = byssal_profile_distance();
	if (phase == ON) byssal_profile_write_now_and_then();
	pthread_mutex_unlock(&lock);
	end_work(&work);
}

/* The thread's first limit. */
static RARE void draw(void)
{
	struct work work;
	begin_work(&work);
	pthread_mutex_lock(&lock);
	limit = byssal_profile_distance();
	drawn = 1;
	pthread_mutex_unlock(&lock);
	end_work(&work);
}

/* A block was allocated whose bytes were not counted yet. One of 0 bytes counts as of 1. */
static RARE void *count_rarely(void *p, size_t n)
{
	if (!p || busy) return p;
	if (!is_on()) {
		int now = __atomic_load_n(&phase, __ATOMIC_RELAXED);
		if (now == OFF || now == DONE) limit = NEVER;
		return p;
	}
	if (!drawn) draw();
	if (!n) n = 1;
	if (n > limit) note(p, n);
	else limit -= n;
	return p;
}

/* Whether n bytes pass without a sample; then they are counted. */
static inline int passes(size_t n)
{
	/* 0 does not pass. */
	if (UNLIKELY(n - 1 >= limit)) return 0;
	limit -= n;
	return 1;
}

static inline void *count(void *p, size_t n)
{
	return passes(n) ? p : count_rarely(p, n);
}

/* Whether the block at p may be a sample. Relaxed: see filter.rs. */
static inline int may_be_sample(void *p)
{
	size_t page = (uintptr_t)p >> 12 & ((1 << FILTER_BITS) - 1);
	return UNLIKELY(__atomic_load_n(&byssal_profile_filters[0][page], __ATOMIC_RELAXED));
}

/* Takes the sample at p out, which is about to be freed: another may be there right after. */
static RARE int take(void *p, struct sample *sample)
{
	struct work work;
	uint64_t mixed = (uint64_t)(uintptr_t)p * 0x9e3779b97f4a7c15u;
	size_t block = (uintptr_t)mixed >> (8 * sizeof block - FILTER_BITS);
	if (!__atomic_load_n(&byssal_profile_filters[1][block], __ATOMIC_RELAXED)) return 0;
	if (busy || !is_on()) return 0;
	begin_work(&work);
	pthread_mutex_lock(&lock);
	int was = byssal_profile_freed((uintptr_t)p, sample);
	pthread_mutex_unlock(&lock);
	end_work(&work);
	return was;
}

static RARE void put_back(const struct sample *sample)
{
	struct work work;
	begin_work(&work);
	pthread_mutex_lock(&lock);
	byssal_profile_restore(sample);
	pthread_mutex_unlock(&lock);
	end_work(&work);
}

static inline void forget(void *p)
{
	struct sample sample;
	if (may_be_sample(p)) take(p, &sample);
}

/* The public family. */

static RARE void *malloc_rarely(size_t n)
{
	return count_rarely(byssal_malloc(n), n);
}

PUBLIC void *malloc(size_t n)
{
	return passes(n) ? byssal_malloc(n) : malloc_rarely(n);
}

PUBLIC void *calloc(size_t items, size_t size)
{
	/* Where the product does not fit there is no block. */
	return count(byssal_calloc(items, size), items * size);
}

static RARE void *realloc_rarely(void *p, size_t n)
{
	struct sample sample;
	int was = p && may_be_sample(p) && take(p, &sample);
	void *new = byssal_realloc(p, n);
	if (new) return count(new, n);
	/* With 0 bytes null is no failure beside glibc, and none is known elsewhere. */
	if (was && n) put_back(&sample);
	return 0;
}

/* A block that is made anew counts anew, wherever it is. */
PUBLIC void *realloc(void *p, size_t n)
{
	if (may_be_sample(p) || !passes(n)) return realloc_rarely(p, n);
	return byssal_realloc(p, n);
}

PUBLIC void *reallocarray(void *p, size_t items, size_t size)
{
	size_t n;
	if (__builtin_mul_overflow(items, size, &n)) return byssal_reallocarray(p, items, size);
	return realloc(p, n);
}

PUBLIC void free(void *p)
{
	forget(p);
	byssal_free(p);
}

PUBLIC void free_sized(void *p, size_t n)
{
	forget(p);
	byssal_free_sized(p, n);
}

PUBLIC void free_aligned_sized(void *p, size_t align, size_t n)
{
	forget(p);
	byssal_free_aligned_sized(p, align, n);
}

PUBLIC void *aligned_alloc(size_t align, size_t n)
{
	return count(byssal_aligned_alloc(align, n), n);
}

PUBLIC void *memalign(size_t align, size_t n)
{
	return count(byssal_memalign(align, n), n);
}

PUBLIC int posix_memalign(void **out, size_t align, size_t n)
{
	int error = byssal_posix_memalign(out, align, n);
	if (!error) count(*out, n);
	return error;
}

PUBLIC void *valloc(size_t n)
{
	return count(byssal_valloc(n), n);
}

PUBLIC void *pvalloc(size_t n)
{
	return count(byssal_pvalloc(n), n);
}

/* The process: its beginning, its children, its end. */

HIDDEN void byssal_profile_finish(void)
{
	struct work work;
	if (busy || !is_on()) return;
	begin_work(&work);
	pthread_mutex_lock(&lock);
	if (phase == ON) {
		byssal_profile_write_file(1);
		__atomic_store_n(&phase, DONE, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
	end_work(&work);
}

__attribute__((destructor)) static void at_exit(void)
{
	byssal_profile_finish();
}

/* Runs no destructor, and children of fork often end so. */
PUBLIC _Noreturn void _exit(int status)
{
	byssal_profile_finish();
	for (;;) syscall(SYS_exit_group, status);
}

PUBLIC _Noreturn void _Exit(int status)
{
	_exit(status);
}

/* The lock is taken, so that the child finds all of it whole. Handlers of others, which may still
 * run on this side of ours, are not sampled. */
static void before_fork(void)
{
	busy++;
	pthread_mutex_lock(&lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
	busy--;
}

/* The blocks of a child at its start are its parent's, and in the parent's file. */
static void after_fork_child(void)
{
	pthread_mutex_init(&lock, 0);
	if (phase == ON) {
		process = getpid();
		byssal_profile_begin_files(0);
		/* Each of many children takes others. */
		seed += (uint64_t)process << 32;
		byssal_profile_reset(seed);
		limit = byssal_profile_distance();
	}
	busy--;
}

static const char *setting(char **environment, const char *name)
{
	size_t len = strlen(name);
	for (; environment && *environment; environment++)
		if (!strncmp(*environment, name, len) && (*environment)[len] == '=')
			return *environment + len + 1;
	return 0;
}

static void begin(char **environment)
{
	const char *to = setting(environment, "BYSSAL_PROFILE");
	const char *mean = setting(environment, "BYSSAL_PROFILE_MEAN");
	const char *given = setting(environment, "BYSSAL_PROFILE_SEED");
	const void *random = (const void *)getauxval(AT_RANDOM);
	int is_on = to && *to && !getauxval(AT_SECURE) && byssal_profile_begin_files(to);
	if (is_on) {
		process = getpid();
		if (random) memcpy(&seed, random, sizeof seed);
		if (given) seed = strtoull(given, 0, 10);
		byssal_profile_begin(mean ? strtoull(mean, 0, 10) : 512 << 10, seed);
		pthread_atfork(before_fork, after_fork_parent, after_fork_child);
		/* Runs no destructor either. */
		at_quick_exit(byssal_profile_finish);
	}
	byssal_profile_begin_signals(is_on);
	__atomic_store_n(&phase, is_on ? ON : OFF, __ATOMIC_RELAXED);
}

/* glibc calls the first constructor of all before it sets environ, but hands it over; musl hands
 * nothing over. */
#ifdef __GLIBC__
__attribute__((constructor)) static void start(int argc, char **argv, char **environment)
{
	(void)argc, (void)argv;
	begin(environment);
}
#else
__attribute__((constructor)) static void start(void)
{
	begin(environ);
}
#endif
