/* Large and aligned blocks made by one thread, resized and freed by another. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 32, ROUNDS = 1500 };
typedef struct { size_t n; uint64_t seed; } Head;
static _Atomic(Head *) slot[SLOTS];

/* Only the ends are written, so that the test is about mappings and not about memory speed. */
static void mark(Head *h, size_t n, uint64_t seed)
{
	h->n = n;
	h->seed = seed;
	fill(h + 1, 256, seed);
	fill((char *)h + n - 256, 256, seed + 1);
}

static void verify(Head *h)
{
	VERIFY(h + 1, 256, h->seed);
	VERIFY((char *)h + h->n - 256, 256, h->seed + 1);
}

static void *work(void *number)
{
	Random r = random_from((uintptr_t)number + 5);
	for (int i = 0; i < ROUNDS; i++) {
		size_t n = 1024 + (below(&r, 3) ? below(&r, 300000) : below(&r, 3000000));
		Head *h = below(&r, 4) ? malloc(n) : aligned_alloc((size_t)64 << below(&r, 12), n);
		CHECK(h);
		mark(h, n, next_random(&r));
		h = atomic_exchange(&slot[below(&r, SLOTS)], h);
		if (!h) continue;
		verify(h);
		if (below(&r, 2)) {
			size_t old = h->n, grown = old + below(&r, 500000);
			h = realloc(h, grown);
			CHECK(h);
			verify(h);
			mark(h, grown, next_random(&r));
			h = atomic_exchange(&slot[below(&r, SLOTS)], h);
			if (!h) continue;
			verify(h);
		}
		free(h);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread[4];
	for (uintptr_t i = 0; i < COUNT(thread); i++)
		CHECK(!pthread_create(&thread[i], NULL, work, (void *)i));
	for (size_t i = 0; i < COUNT(thread); i++) CHECK(!pthread_join(thread[i], NULL));
	for (int i = 0; i < SLOTS; i++) {
		Head *h = atomic_load(&slot[i]);
		if (h) verify(h);
		free(h);
	}
	return 0;
}
