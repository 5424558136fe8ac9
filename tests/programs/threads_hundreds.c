/* 300 threads alive at once, all at work on blocks of their own and on blocks they pass around;
 * twice. When all have gone, so has their memory. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 300, LIVE = 40, OPERATIONS = 1500, SHARED = 512 };

typedef struct { size_t n; uint64_t seed; } Head;
static _Atomic(Head *) shared[SHARED];
static pthread_barrier_t all_alive;

static Head *make(Random *r)
{
	size_t n = sizeof(Head) + below(r, below(r, 50) ? 700 : 20000);
	Head *h = malloc(n);
	CHECK(h);
	h->n = n;
	h->seed = next_random(r);
	fill(h + 1, n - sizeof *h, h->seed);
	return h;
}

static void drop(Head *h)
{
	if (!h) return;
	VERIFY(h + 1, h->n - sizeof *h, h->seed);
	h->seed = 0;
	free(h);
}

static void *work(void *number)
{
	Random r = random_from((uintptr_t)number + 1000);
	Head *live[LIVE] = { 0 };
	pthread_barrier_wait(&all_alive);
	for (int i = 0; i < OPERATIONS; i++) {
		size_t slot = below(&r, LIVE);
		if (below(&r, 4) == 0) {
			drop(atomic_exchange(&shared[below(&r, SHARED)], make(&r)));
		} else if (live[slot] && below(&r, 4) == 0) {
			Head *h = live[slot];
			size_t n = sizeof *h + below(&r, 2000);
			size_t keep = (n < h->n ? n : h->n) - sizeof *h;
			h = realloc(h, n);
			CHECK(h);
			VERIFY(h + 1, keep, h->seed);
			h->n = n;
			fill(h + 1, n - sizeof *h, h->seed);
			live[slot] = h;
		} else {
			drop(live[slot]);
			live[slot] = make(&r);
		}
	}
	for (int i = 0; i < LIVE; i++) drop(live[i]);
	return NULL;
}

int main(void)
{
	pthread_t thread[THREADS];
	pthread_attr_t small_stack;
	size_t start = resident_bytes(), left[2];
	CHECK(!pthread_attr_init(&small_stack));
	CHECK(!pthread_attr_setstacksize(&small_stack, 128 * KB));
	for (int round = 0; round < 2; round++) {
		CHECK(!pthread_barrier_init(&all_alive, NULL, THREADS));
		for (uintptr_t i = 0; i < THREADS; i++)
			CHECK(!pthread_create(&thread[i], &small_stack, work, (void *)i));
		for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
		for (int i = 0; i < SHARED; i++) drop(atomic_exchange(&shared[i], NULL));
		pthread_barrier_destroy(&all_alive);
		left[round] = over(resident_bytes(), start);
	}
	/* Peak is about 50 MB. Stacks that the libc caches count too. */
	CHECK2(left[0] < 24 * MB, left[0], left[1]);
	CHECK2(left[1] < left[0] + 6 * MB, left[1], left[0]);
	return 0;
}
