/* More handlers than libc has places for, registered before anything is allocated: the first
 * allocation of the process comes from within atexit. Argument thread: in a process with threads,
 * where atexit holds a lock. */
#include "check.h"
#include <pthread.h>

enum { MANY = 100 };
static int ran;
static pthread_barrier_t never;

static void *wait(void *unused)
{
	pthread_barrier_wait(&never);
	return unused;
}

static void handler(void)
{
	ran++;
}

/* Registered first, runs last. */
static void last(void)
{
	if (ran != MANY) _exit(1);
	say_to(1, "handlers ran\n");
}

int main(int argc, char **argv)
{
	pthread_t thread;
	CHECK(!atexit(last));
	CHECK(!pthread_barrier_init(&never, 0, 2));
	if (argc > 1 && !strcmp(argv[1], "thread")) CHECK(!pthread_create(&thread, 0, wait, 0));
	for (int i = 0; i < MANY; i++) CHECK(!atexit(handler));
	/* The allocator has to be in the program. */
	free(malloc(100));
	return 0;
}
