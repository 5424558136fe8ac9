/* What libbyssal needs of its host libc: thread-local storage, thread exit, fork, and stdio for
 * byssal_dump_heap. Works beside glibc and beside musl. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#include <link.h>
#endif

#define HIDDEN __attribute__((visibility("hidden")))

/* Defined in library.rs. */
HIDDEN void byssal_thread_exit(void);
HIDDEN void byssal_process_exit(void);
HIDDEN void byssal_before_fork(void);
HIDDEN void byssal_after_fork_parent(void);
HIDDEN void byssal_after_fork_child(void);
HIDDEN char *byssal_dump(size_t *len, size_t *mapped);

/* The initial-exec model costs one load. What dlopen loads may use it beside glibc, which keeps spare
 * room for that, and may not beside musl: thread.rs knows. */
#ifdef __GLIBC__
#define THREAD __thread __attribute__((tls_model("initial-exec")))
#else
#define THREAD __thread
#endif
HIDDEN THREAD void *byssal_thread_heap;

/* glibc's own word on whether there is a single thread; absent elsewhere. */
extern char __libc_single_threaded __attribute__((weak));

/* Whether this thread's heap was handed over: no destructor will run for it any more. */
static THREAD char handed_over;
/* Frees of this thread before it had a heap, of one slot in four. */
static THREAD char early_frees;

static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static int have_key;

HIDDEN void **byssal_thread_field(void)
{
	return &byssal_thread_heap;
}

/* Memory, and inaccessible pages in its place. Here, as how long off_t is each libc decides. */

HIDDEN void *byssal_map(void *at, size_t len)
{
	return mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

HIDDEN void *byssal_close(void *at, size_t len)
{
	return mmap(at, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/* Milliseconds of a clock that only goes on, coarse to a few of them. Where a filter of system calls
 * refuses to tell, each question counts as 10 ms. */
HIDDEN unsigned byssal_clock(void)
{
	static unsigned refusals;
	struct timespec now;
	int saved = errno;
	int refused = clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	errno = saved;
	/* Relaxed: a number that orders nothing. */
	if (refused) return 10u * __atomic_fetch_add(&refusals, 1, __ATOMIC_RELAXED);
	return (unsigned)now.tv_sec * 1000u + (unsigned)(now.tv_nsec / 1000000);
}

/* The kernel's number of this thread. */
HIDDEN unsigned byssal_thread_id(void)
{
	int saved = errno;
	long number = syscall(SYS_gettid);
	errno = saved;
	return number < 0 ? 0 : (unsigned)number;
}

/* The second number of the version of glibc (36 of 2.36) that the process runs with; -1 beside
 * another libc. */
HIDDEN int byssal_glibc(void)
{
#ifdef __GLIBC__
	/* Relaxed: whoever finds 0 finds it out. */
	static int known;
	int minor = __atomic_load_n(&known, __ATOMIC_RELAXED);
	if (!minor) {
		minor = atoi(gnu_get_libc_version() + sizeof "2." - 1);
		__atomic_store_n(&known, minor, __ATOMIC_RELAXED);
	}
	return minor;
#else
	return -1;
#endif
}

HIDDEN int byssal_single_threaded(void)
{
	return &__libc_single_threaded && __libc_single_threaded;
}

static void exiting(void *unused)
{
	(void)unused;
	handed_over = 1;
	byssal_thread_exit();
}

static void make_key(void)
{
	have_key = !pthread_key_create(&key, exiting);
}

/* Sees to it that this thread's heap is abandoned when the thread exits; 0 if that cannot be. Other
 * destructors may run after ours, and behind the last round of them glibc frees what it kept for the
 * thread: a value set by then would never be looked at. */
HIDDEN int byssal_tell_exit(void)
{
	if (handed_over) return 0;
	int saved = errno;
	pthread_once(&key_once, make_key);
	int told = have_key && !pthread_setspecific(key, &key);
	errno = saved;
	return told;
}

/* Whether a thread without a heap, which frees one of four slots, should get one: not for what
 * glibc frees in the last moments of a thread that never called malloc (stacks of others). */
HIDDEN int byssal_frees_often(void)
{
	if (handed_over) return 0;
	if (early_frees < 16) early_frees++;
	return early_frees == 16;
}

HIDDEN long byssal_futex(const void *word, int operation, unsigned value)
{
	int saved = errno;
	long result = syscall(SYS_futex, word, operation | 128 /* private */, value, 0, 0, 0);
	errno = saved;
	return result;
}

HIDDEN int byssal_errno_swap(int value)
{
	int old = errno;
	errno = value;
	return old;
}

HIDDEN const unsigned char *byssal_random(void)
{
	return (const unsigned char *)getauxval(AT_RANDOM);
}

#ifdef BYSSAL_CHOOSES
/* Bytes that the kernel draws for this call, without waiting; 0 if it refuses. */
HIDDEN int byssal_entropy(unsigned char *out, size_t len)
{
	enum { NONBLOCK = 1 };
	int saved = errno;
	long drawn = syscall(SYS_getrandom, out, len, NONBLOCK);
	errno = saved;
	return drawn == (long)len;
}
#endif

/* Prints every class, group and slot; 0 on success, -1 when stream cannot be written. The text is
 * made first: stdio may allocate. */
__attribute__((visibility("default"))) int byssal_dump_heap(FILE *stream)
{
	size_t len, mapped;
	char *text = byssal_dump(&len, &mapped);
	if (!text) return -1;
	size_t written = fwrite(text, 1, len, stream);
	munmap(text, mapped);
	return written == len && !fflush(stream) ? 0 : -1;
}

/* glibc's lock of the list of streams. fork takes it after our handler, while its holder may wait for
 * a stream whose holder allocates: it has to come before our lock. Absent elsewhere. */
extern void _IO_list_lock(void) __attribute__((weak));
extern void _IO_list_unlock(void) __attribute__((weak));
extern void _IO_list_resetlock(void) __attribute__((weak));

static void before_fork(void)
{
	if (_IO_list_lock) _IO_list_lock();
	byssal_before_fork();
}

static void after_fork_parent(void)
{
	byssal_after_fork_parent();
	if (_IO_list_unlock) _IO_list_unlock();
}

static void after_fork_child(void)
{
	byssal_after_fork_child();
	if (_IO_list_resetlock) _IO_list_resetlock();
}

#ifdef BYSSAL_COUNT
#include <fcntl.h>

/* Name and value of counter number index, see src/count; NULL behind the last. */
HIDDEN const char *byssal_count(size_t index, unsigned long long *value);

/* Of this thread's own time: while another runs, the lock is not at work. */
HIDDEN unsigned long long byssal_nanoseconds(void)
{
	struct timespec now = {0};
	int saved = errno;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	errno = saved;
	return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec;
}

/* Adds a line for each counter to the file that BYSSAL_COUNTS names, or to stderr. */
static void tell_counts(void)
{
	const char *path = getenv("BYSSAL_COUNTS"), *name;
	unsigned long long value;
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : 2;
	for (size_t i = 0; (name = byssal_count(i, &value)); i++) dprintf(fd, "%s %llu\n", name, value);
	if (path) close(fd);
}
#endif

__attribute__((destructor)) static void finish(void)
{
	byssal_process_exit();
#ifdef BYSSAL_COUNT
	tell_counts();
#endif
}

#ifdef __GLIBC__
/* Absent in static programs, which have nothing to unload. */
extern void *dlopen(const char *, int) __attribute__((weak));
extern char *dlerror(void) __attribute__((weak));
extern int dladdr(const void *, Dl_info *) __attribute__((weak));
/* What the object that this is in asks of the dynamic linker. */
extern ElfW(Dyn) _DYNAMIC[] __attribute__((weak, visibility("hidden")));

/* A plugin that was linked with libbyssal.a stays when it is closed: threads that used it have a
 * destructor here, and blocks of it may live. Not so libbyssal.so, which is linked to stay: dlopen
 * from its constructor, the first of all, would run libc's before its time, without an environment. */
static void stay(void)
{
	Dl_info own, program;
	for (const ElfW(Dyn) *d = _DYNAMIC; d && d->d_tag; d++)
		if (d->d_tag == DT_FLAGS_1 && d->d_un.d_val & DF_1_NODELETE) return;
	if (!dlopen || !dlerror || !dladdr || !dladdr((void *)exiting, &own)) return;
	if (dladdr((void *)getauxval(AT_PHDR), &program) && own.dli_fbase == program.dli_fbase) return;
	if (!dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE)) dlerror();
}
#else
/* musl unloads nothing. */
static void stay(void) {}
#endif

__attribute__((constructor)) static void start(void)
{
	stay();
	/* Before the program makes keys of its own: beyond the 32nd, glibc allocates a table for a value,
	 * and if that is the thread's first use of malloc, the table in which ours is set is lost. */
	pthread_once(&key_once, make_key);
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}
