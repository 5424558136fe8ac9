/* Two threads swap blocks through a shared array as fast as they can: each frees and resizes what
 * the other made, both push to each other's heap all the time. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 400, OPERATIONS = 600000 };
typedef struct { uint32_t n, seed; } Head;
static _Atomic(Head *) slot[SLOTS];

static void *work(void *number)
{
	Random r = random_from((uintptr_t)number + 17);
	for (int i = 0; i < OPERATIONS; i++) {
		uint32_t n = (uint32_t)(sizeof(Head) + below(&r, 250));
		Head *h = malloc(n);
		CHECK(h);
		h->n = n;
		h->seed = (uint32_t)next_random(&r);
		fill(h + 1, n - sizeof *h, h->seed);
		h = atomic_exchange_explicit(&slot[below(&r, SLOTS)], h, memory_order_acq_rel);
		if (!h) continue;
		VERIFY(h + 1, h->n - sizeof *h, h->seed);
		if (i % 16 == 0) {
			size_t keep = h->n - sizeof *h;
			h = realloc(h, h->n + 100);
			CHECK(h);
			VERIFY(h + 1, keep, h->seed);
		}
		free(h);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread[2];
	size_t start = resident_bytes();
	for (uintptr_t i = 0; i < COUNT(thread); i++)
		CHECK(!pthread_create(&thread[i], NULL, work, (void *)i));
	for (size_t i = 0; i < COUNT(thread); i++) CHECK(!pthread_join(thread[i], NULL));
	for (int i = 0; i < SLOTS; i++) {
		Head *h = atomic_load(&slot[i]);
		if (h) VERIFY(h + 1, h->n - sizeof *h, h->seed);
		free(h);
	}
	CHECK2(over(resident_bytes(), start) < 4 * MB, resident_bytes(), start);
	return 0;
}
