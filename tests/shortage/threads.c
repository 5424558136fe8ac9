/* Threads that start while memory is short, leave blocks to others, and exit. A thread that
 * cannot start (EAGAIN, libc's own mappings are refused as well) is done without. */
#include "shortage.h"
#include <pthread.h>

enum { ROUNDS = 4, THREADS = 3, EACH = 40 };
static Block own[ROUNDS * THREADS][EACH];

static void *work(void *number)
{
	size_t me = (uintptr_t)number;
	Random r = random_from(me);
	for (size_t i = 0; i < EACH; i++) {
		size_t n = below(&r, i % 8 ? 1000 : 200000);
		errno = 0;
		keep(&own[me][i], malloc(n), n, me * 1000 + i);
	}
	/* Half of what the thread of the round before left. */
	if (me < THREADS) return 0;
	for (size_t i = 0; i < EACH; i += 2) {
		Block *b = &own[me - THREADS][i];
		if (b->p) VERIFY(b->p, b->n, b->seed);
		free(b->p);
		b->p = 0;
	}
	return 0;
}

int main(void)
{
	pthread_attr_t small;
	CHECK(!pthread_attr_init(&small));
	/* Small stacks: glibc keeps them, and aborts where it cannot unmap one. */
	CHECK(!pthread_attr_setstacksize(&small, 128 * KB));
	begin();
	for (uintptr_t round = 0; round < ROUNDS; round++) {
		pthread_t thread[THREADS];
		int started[THREADS];
		for (uintptr_t i = 0; i < THREADS; i++) {
			int error = pthread_create(&thread[i], &small, work, (void *)(round * THREADS + i));
			CHECK2(!error || error == EAGAIN || error == ENOMEM, error, i);
			started[i] = !error;
		}
		for (int i = 0; i < THREADS; i++)
			if (started[i]) CHECK(!pthread_join(thread[i], 0));
		for (int i = 0; i < 10; i++) take((size_t)i * 777);
	}
	for (size_t t = 0; t < ROUNDS * THREADS; t++) {
		for (size_t i = 0; i < EACH; i++) {
			Block *b = &own[t][i];
			if (b->p) VERIFY(b->p, b->n, b->seed);
			free(b->p);
		}
	}
	end();
	return 0;
}
