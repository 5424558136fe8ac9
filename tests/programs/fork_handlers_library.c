/* Belongs to fork_handlers.c: a library that allocates under a lock of its own, and takes that lock
 * over a fork, as libraries do. Its constructor runs before the program's. */
#include <pthread.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *kept;

static void take(void) { pthread_mutex_lock(&lock); }
static void give(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void start(void)
{
	pthread_atfork(take, give, give);
}

void library_work(size_t n)
{
	take();
	free(kept);
	kept = malloc(n);
	give();
}
