/* Allocates what src/tool/tests/profile.rs knows of, in functions whose names it looks for. The
 * first argument says what: the functions below main's table. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

enum { KEPT = 200000, KEPT_SIZE = 64, DROPPED = 400000, DROPPED_SIZE = 48, REGROWN = 20000 };
static void *kept[KEPT];

/* No call of these is the last thing that its caller does: then it would not be on the stack. */
#define STAYS __asm__ volatile("" ::: "memory")

NOINLINE static void keeps(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) kept[i] = malloc(KEPT_SIZE);
	STAYS;
}

NOINLINE static void drops(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char *volatile block = malloc(DROPPED_SIZE);
		free(block);
	}
	STAYS;
}

/* 1000 + 2000 + 3000 bytes, of which the last are live; one that fails leaves them so. */
NOINLINE static void grows(void)
{
	static char *volatile block;
	block = malloc(1000);
	block = realloc(block, 2000);
	block = realloc(block, 3000);
	volatile size_t too_much = SIZE_MAX / 2;
	if (realloc(block, too_much)) abort();
	STAYS;
}

/* Blocks that grow: the long ones are live. */
NOINLINE static void regrows(void)
{
	static void *blocks[REGROWN];
	for (size_t i = 0; i < REGROWN; i++) blocks[i] = malloc(100);
	for (size_t i = 0; i < REGROWN; i++) blocks[i] = realloc(blocks[i], 1000);
	STAYS;
}

/* 300 + 301 + 302 + 303 + 10 * 31 + 10 * 32 bytes: each of the family. */
NOINLINE static void each(void)
{
	static void *volatile blocks[6];
	void *p;
	blocks[0] = aligned_alloc(64, 300);
	blocks[1] = memalign(128, 301);
	if (posix_memalign(&p, 256, 302)) abort();
	blocks[2] = p;
	blocks[3] = valloc(303);
	blocks[4] = calloc(10, 31);
	blocks[5] = reallocarray(0, 10, 32);
	STAYS;
}

static int known(void)
{
	keeps(0, 1000);
	drops(5000);
	grows();
	each();
	return 7;
}

static int many(void)
{
	keeps(0, KEPT);
	drops(DROPPED);
	regrows();
	return 0;
}

enum { THREADS = 4 };

static void *thread(void *number)
{
	size_t part = KEPT / THREADS, from = part * (size_t)number;
	keeps(from, from + part);
	drops(DROPPED / THREADS);
	return 0;
}

static void with_threads(void)
{
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++)
		if (pthread_create(threads + i, 0, thread, (void *)i)) abort();
	for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
}

/* Blocks of threads that have ended are live, and every other one is freed by another thread. */
static int threads(void)
{
	with_threads();
	for (size_t i = 0; i < KEPT; i += 2) free(kept[i]);
	return 0;
}

NOINLINE static void child_keeps(void)
{
	kept[0] = malloc(500);
	STAYS;
}

static void wait_for(pid_t child)
{
	int status;
	if (child < 0 || waitpid(child, &status, 0) != child || status) abort();
}

/* What a child frees of its parent's is not freed in the parent. */
static int forks(void)
{
	keeps(0, 10);
	for (int way = 0; way < 2; way++) {
		pid_t child = fork();
		if (!child) {
			free(kept[1]);
			child_keeps();
			if (way) _exit(0);
			exit(0);
		}
		wait_for(child);
	}
	return 0;
}

static volatile int stop;

static void *restless(void *unused)
{
	(void)unused;
	while (!stop) {
		char *volatile block = malloc(100);
		block = realloc(block, 200);
		free(block);
	}
	return 0;
}

/* Children of a process whose other threads are at work in malloc. */
static int restless_forks(void)
{
	pthread_t threads[2];
	for (int i = 0; i < 2; i++) pthread_create(threads + i, 0, restless, 0);
	for (int i = 0; i < 100; i++) {
		pid_t child = fork();
		if (!child) {
			child_keeps();
			_exit(0);
		}
		wait_for(child);
	}
	if (system("exit 0")) abort();
	stop = 1;
	for (int i = 0; i < 2; i++) pthread_join(threads[i], 0);
	keeps(0, 10);
	return 0;
}

/* Allocates until a file has been written that has all that is kept. */
static void allocates_until_told(void)
{
	char pattern[4096];
	glob_t found;
	snprintf(pattern, sizeof pattern, "%s*.heap", getenv("BYSSAL_PROFILE"));
	keeps(0, 1000);
	/* On a busy machine one may have been written meanwhile. */
	if (!glob(pattern, 0, 0, &found)) unlink(*found.gl_pathv);
	while (glob(pattern, 0, 0, &found)) drops(10000);
}

static int killed(void)
{
	allocates_until_told();
	return raise(SIGKILL);
}

/* Becomes the same program anew, in the same process. */
static int becomes(void)
{
	char *arguments[] = {"becomes", "known", 0};
	allocates_until_told();
	return execv("/proc/self/exe", arguments);
}

static volatile sig_atomic_t handled;

static void handle(int signal)
{
	(void)signal;
	handled = 1;
}

/* Is ended from outside; finds no handler of others before, and its own works. */
static int terminated(void)
{
	struct sigaction before, own = {.sa_handler = handle};
	if (sigaction(SIGINT, 0, &before) || before.sa_handler != SIG_DFL) return 1;
	if (sigaction(SIGINT, &own, &before) || before.sa_handler != SIG_DFL) return 2;
	if (raise(SIGINT) || !handled) return 3;
	if (signal(SIGHUP, SIG_IGN) != SIG_DFL || raise(SIGHUP)) return 4;
	keeps(0, 1000);
	return raise(SIGTERM);
}

/* Says that it waits to be ended from outside; by itself it ends if nobody does. */
static int waits(void)
{
	keeps(0, 1000);
	alarm(60);
	if (write(1, "waits\n", 6) != 6) return 1;
	for (;;) pause();
}

/* libc has them; its headers tell of some only by other standards. */
typedef void handler(int);
handler *bsd_signal(int, handler *);
handler *__sysv_signal(int, handler *);

static handler *by_sigaction(int signal, handler *new)
{
	struct sigaction before, own = {.sa_handler = new};
	return sigaction(signal, &own, &before) ? SIG_ERR : before.sa_handler;
}

static int defaulted_by(handler *(*set)(int, handler *))
{
	struct sigaction now;
	if (set(SIGTERM, handle) != SIG_DFL) return 1;
	if (raise(SIGTERM) || !handled) return 2;
	if (set(SIGTERM, handle) == SIG_ERR || set(SIGTERM, SIG_DFL) != handle) return 3;
	if (siginterrupt(SIGTERM, 1)) return 4;
	if (sigaction(SIGTERM, 0, &now) || now.sa_handler != SIG_DFL) return 5;
	keeps(0, 10);
	return raise(SIGTERM);
}

/* Each child sets a handler of its own and then none, by another function, and is ended. The number
 * of the first function that another end follows. */
static int defaulted(void)
{
	static handler *(*const all[])(int, handler *) = {by_sigaction, signal, bsd_signal,
		__sysv_signal, sigset,
#ifdef __GLIBC__
		sysv_signal, ssignal,
#endif
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		int status = 0;
		pid_t child = fork();
		if (!child) _exit(defaulted_by(all[i]));
		if (child < 0 || waitpid(child, &status, 0) != child) abort();
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM) return (int)i + 1;
	}
	return 0;
}

/* No file of it can be as long as a profile. */
static int no_room(void)
{
	struct rlimit size = {100, 100};
	setrlimit(RLIMIT_FSIZE, &size);
	keeps(0, 1000);
	return 0;
}

static int no_room_and_fails(void)
{
	no_room();
	return 5;
}

/* Before anything was written. */
static int killed_early(void)
{
	return raise(SIGKILL);
}

/* Ends without destructors. */
static int quickly(void)
{
	keeps(0, 1000);
	quick_exit(3);
}

/* All that was open is closed, and what is 0, 1 and 2 then is a file. */
static int closes(void)
{
	for (int i = 0; i < 100; i++) close(i);
	for (int i = 0; i < 3; i++)
		if (open("victim", O_WRONLY | O_CREAT | O_APPEND, 0644) != i) return 1;
	keeps(0, 1000);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} all[] = {{"known", known}, {"many", many}, {"threads", threads}, {"forks", forks},
		{"restless_forks", restless_forks}, {"killed", killed},
		{"becomes", becomes}, {"terminated", terminated},
		{"waits", waits}, {"defaulted", defaulted}, {"no_room", no_room},
		{"no_room_and_fails", no_room_and_fails}, {"killed_early", killed_early},
		{"quickly", quickly}, {"closes", closes}};
	for (size_t i = 0; argc == 2 && i < sizeof all / sizeof *all; i++)
		if (!strcmp(argv[1], all[i].name)) return all[i].run();
	return 99;
}
