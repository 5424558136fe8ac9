/* The public malloc family of libbyssal_profile.so: counts the bytes that each thread allocates, notes
 * a sample with its call stack now and then, and leaves the rest to the allocator, whose functions have
 * other names here. Also what the profile needs of its libc: threads, fork, files. lib.rs is the map.
 *
 * Settings, in the environment: BYSSAL_PROFILE, how the names of the files begin; without it nothing is
 * noted. BYSSAL_PROFILE_MEAN, bytes between samples. BYSSAL_PROFILE_SEED, for tests. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#define HIDDEN __attribute__((visibility("hidden")))
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
HIDDEN int byssal_profile_write(int (*put)(const unsigned char *, size_t));

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
#define NANOSECONDS 1000000000ull

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* BEFORE the constructor, OFF without the setting, DONE when the last file is written. Each thread reads
 * it relaxed: who sees an older value does without a sample, or takes one that nobody writes. */
static enum { BEFORE, OFF, ON, DONE } phase;
/* The process that phase is of: the child of a vfork, or of a fork that ran no handlers, is another. */
static pid_t process;
static uint64_t seed, began, written_at, writing_took;
/* Of the files: what is set, and the whole of it for this process. */
static char prefix[3072], final_path[4096], part_path[4096];
static int output, output_limited;
static uint64_t output_room;

HIDDEN void *byssal_profile_map(size_t len)
{
	void *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? 0 : at;
}

static uint64_t now(void)
{
	struct timespec time = {0};
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
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
	busy = 1;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &work->signals);
}

static void end_work(struct work *work)
{
	pthread_sigmask(SIG_SETMASK, &work->signals, 0);
	busy = 0;
	errno = work->saved_errno;
}

static int is_on(void)
{
	return __atomic_load_n(&phase, __ATOMIC_RELAXED) == ON && getpid() == process;
}

/* Files. By bare system calls: those of libc are points where a thread may be cancelled. */

static int put(const unsigned char *bytes, size_t len)
{
	if (output_limited && output_room < len) return 0;
	output_room -= len;
	while (len) {
		ssize_t done = syscall(SYS_write, output, bytes, len);
		if (done < 0 && errno == EINTR) continue;
		if (done <= 0) return 0;
		bytes += done;
		len -= (size_t)done;
	}
	return 1;
}

static int put_text(const char *text)
{
	return put((const unsigned char *)text, strlen(text));
}

/* A line of the program's path; a line break in it would end the line. */
static int put_program(void)
{
	char path[4096];
	ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
	path[len < 0 ? 0 : len] = 0;
	for (char *c = path; *c; c++)
		if (*c == '\n') *c = '?';
	return put_text("program ") && put_text(path) && put_text("\n");
}

static int put_maps(void)
{
	unsigned char text[4096];
	ssize_t len = 0;
	int maps = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int whole = maps >= 0 && put_text("maps\n");
	while (whole && (len = syscall(SYS_read, maps, text, sizeof text)) > 0)
		whole = put(text, (size_t)len);
	if (maps >= 0) syscall(SYS_close, maps);
	return whole && len == 0 && put_text("end\n");
}

static int put_all(int final)
{
	char head[256];
	snprintf(head, sizeof head, "byssal heap profile 1\nstate %s\nprocess %d %d\nelapsed %llu\n",
		final ? "final" : "running", (int)process, (int)getppid(),
		(unsigned long long)(now() - began));
	return put_text(head) && put_program() && byssal_profile_write(put) && put_maps();
}

/* Writes the file, whole or not at all. The lock is held. Failure leaves the last one: nobody is told,
 * as whatever file has the number 2 is the program's; the tool sees that there is none. */
static void write_file(int final)
{
	enum { FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC };
	struct rlimit size;
	uint64_t start = now();
	/* Beyond the limit the kernel sends a signal. */
	output_limited = !getrlimit(RLIMIT_FSIZE, &size) && size.rlim_cur != RLIM_INFINITY;
	output_room = output_limited ? size.rlim_cur : 0;
	output = (int)syscall(SYS_openat, AT_FDCWD, part_path, FLAGS, 0644);
	if (output >= 0) {
		int whole = put_all(final);
		whole &= !syscall(SYS_close, output);
		if (!whole || renameat(AT_FDCWD, part_path, AT_FDCWD, final_path)) unlink(part_path);
	}
	written_at = now();
	writing_took = written_at - start;
}

/* A process that is killed leaves what it wrote last: a quarter of a second ago at most when it took a
 * sample later, and longer ago if writing takes so long that it would be more than a hundredth of all. */
static void write_now_and_then(void)
{
	uint64_t pause = NANOSECONDS / 4;
	if (pause < 100 * writing_took) pause = 100 * writing_took;
	if (now() - written_at >= pause) write_file(0);
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

/* Notes the block as a sample. Walks without the lock: the walk may take the dynamic linker's, whose
 * holder may allocate. */
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
	if (phase == ON) write_now_and_then();
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

/* The names of its files. A process that another program's image replaces keeps its number: the time
 * tells them apart. */
static void name_files(void)
{
	process = getpid();
	began = written_at = now();
	int len = snprintf(final_path, sizeof final_path, "%s%d-%llu.heap", prefix, (int)process,
		(unsigned long long)began);
	snprintf(part_path, sizeof part_path, "%.*s.part", len - 5, final_path);
}

static void finish(void)
{
	struct work work;
	if (busy || !is_on()) return;
	begin_work(&work);
	pthread_mutex_lock(&lock);
	if (phase == ON) {
		write_file(1);
		__atomic_store_n(&phase, DONE, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
	end_work(&work);
}

__attribute__((destructor)) static void at_exit(void)
{
	finish();
}

/* Runs no destructor, and children of fork often end so. */
PUBLIC _Noreturn void _exit(int status)
{
	finish();
	for (;;) syscall(SYS_exit_group, status);
}

PUBLIC _Noreturn void _Exit(int status)
{
	_exit(status);
}

/* The lock is taken, so that the child finds all of it whole. Handlers of others, which may still run
 * on this side of ours, are not sampled. */
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
		name_files();
		/* Each of many children takes others. */
		seed += began ^ ((uint64_t)process << 32);
		byssal_profile_reset(seed);
		limit = byssal_profile_distance();
		writing_took = 0;
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
	int is_on = to && *to && strlen(to) < sizeof prefix && !getauxval(AT_SECURE);
	if (is_on) {
		strcpy(prefix, to);
		name_files();
		if (random) memcpy(&seed, random, sizeof seed);
		if (given) seed = strtoull(given, 0, 10);
		byssal_profile_begin(mean ? strtoull(mean, 0, 10) : 512 << 10, seed);
		pthread_atfork(before_fork, after_fork_parent, after_fork_child);
		/* Runs no destructor either. */
		at_quick_exit(finish);
	}
	__atomic_store_n(&phase, is_on ? ON : OFF, __ATOMIC_RELAXED);
}

/* glibc calls the first constructor of all before it sets environ, but hands it over; musl hands nothing
 * over. */
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

/* A gcc that is beside glibc brings an unwinder that asks it for the object at an address, and musl has
 * no such function. The layout of the result is what glibc's manual documents. */
struct dl_find_object {
	unsigned long long flags;
	void *start, *end, *link_map, *eh_frame, *eh_dbase, *reserved[7];
};

struct search {
	uintptr_t at;
	struct dl_find_object *found;
};

static int look_at(struct dl_phdr_info *info, size_t len, void *data)
{
	struct search *search = data;
	int is_here = 0;
	void *frames = 0;
	(void)len;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = info->dlpi_phdr + i;
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type == PT_LOAD && search->at - start < segment->p_memsz) {
			is_here = 1;
			search->found->start = (void *)start;
			search->found->end = (void *)(start + segment->p_memsz);
		}
		if (segment->p_type == PT_GNU_EH_FRAME) frames = (void *)start;
	}
	if (is_here) search->found->eh_frame = frames;
	return is_here && frames;
}

HIDDEN int _dl_find_object(void *at, struct dl_find_object *found)
{
	struct search search = {(uintptr_t)at, found};
	memset(found, 0, offsetof(struct dl_find_object, eh_dbase));
	return dl_iterate_phdr(look_at, &search) ? 0 : -1;
}
#endif
