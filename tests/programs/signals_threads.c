/* Threads that allocate are signalled by another thread without pause. */
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { THREADS = 4, BLOCKS = 150000 };
static atomic_int done;
static atomic_uint handled;

static void handler(int number)
{
	(void)number;
	atomic_fetch_add(&handled, 1);
}

static void *work(void *number)
{
	Random r = random_from((uintptr_t)number);
	struct { unsigned char *p; size_t n; } ring[64];
	memset(ring, 0, sizeof ring);
	for (int i = 0; i < BLOCKS; i++) {
		size_t slot = (size_t)i % COUNT(ring);
		if (ring[slot].p) VERIFY(ring[slot].p, ring[slot].n, slot);
		free(ring[slot].p);
		ring[slot].n = below(&r, 1000);
		CHECK(ring[slot].p = malloc(ring[slot].n));
		fill(ring[slot].p, ring[slot].n, slot);
	}
	for (size_t slot = 0; slot < COUNT(ring); slot++) free(ring[slot].p);
	atomic_fetch_add(&done, 1);
	/* Stay until all are done: the signaller needs valid threads. */
	while (atomic_load(&done) < THREADS) usleep(1000);
	return NULL;
}

int main(void)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
	CHECK(!sigaction(SIGUSR1, &action, NULL));
	pthread_t thread[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&thread[i], NULL, work, (void *)i));
	for (int i = 0; atomic_load(&done) < THREADS; i++) {
		/* A thread that is done waits for the others, so all are there until the last is. */
		if (atomic_load(&done) < THREADS) pthread_kill(thread[i % THREADS], SIGUSR1);
		usleep(50);
	}
	for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
	CHECK(atomic_load(&handled) > 10);
	return 0;
}
