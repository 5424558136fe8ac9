/* A process that ends by exit while its other threads are at work, and their freed slots wait in
 * queues that exit looks at. Arguments:
 * sound:    300 children, each with threads that allocate and free all the while: no fault;
 * damaged:  a child whose threads each freed a block that they wrote beyond, and now sleep: found. */
#include "children.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { CHILDREN = 300, THREADS = 4 };
static atomic_int started;

static void *work(void *number)
{
	Random r = random_from((uint64_t)(uintptr_t)number);
	unsigned char *kept[8] = { 0 };
	size_t length[8] = { 0 };
	for (size_t i = 0;; i++) {
		size_t slot = below(&r, COUNT(kept));
		if (kept[slot]) VERIFY(kept[slot], length[slot], slot);
		free(kept[slot]);
		length[slot] = below(&r, below(&r, 4) ? 16 : 3000);
		CHECK(kept[slot] = malloc(length[slot]));
		fill(kept[slot], length[slot], slot);
		if (i == 1000) atomic_fetch_add(&started, 1);
	}
	return NULL;
}

static void *damage(void *number)
{
	volatile unsigned char *block = malloc(100);
	CHECK(block);
	block[100] ^= 0x55;
	free((void *)block);
	atomic_fetch_add(&started, 1);
	for (;;) pause();
	return number;
}

static void start(void *(*how)(void *), uint64_t seed)
{
	pthread_t thread;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&thread, NULL, how, (void *)(uintptr_t)(seed * THREADS + i)));
	while (atomic_load(&started) < THREADS) usleep(100);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "damaged")) {
		pid_t child = fork();
		if (child == 0) {
			setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
			CHECK(dup2(1, 2) == 2);
			CHECK(!close(1));
			start(damage, 0);
			exit(0);
		}
		int status;
		CHECK(waitpid(child, &status, 0) == child);
		CHECK2(WIFSIGNALED(status), status, 0);
#if defined(__powerpc__) || defined(__mips__)
		/* There a store stops it, see docs/faults.md. */
		CHECK2(WTERMSIG(status) == SIGSEGV, WTERMSIG(status), 0);
#else
		CHECK2(WTERMSIG(status) == SIGILL || WTERMSIG(status) == SIGTRAP, WTERMSIG(status), 0);
#endif
		return 0;
	}
	for (uint64_t seed = 0; seed < CHILDREN; seed++) {
		pid_t child = fork();
		if (child == 0) {
			start(work, seed);
			exit(0);
		}
		wait_for(child, __LINE__);
	}
	return 0;
}
