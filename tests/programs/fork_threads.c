/* fork in a loop while four threads are busy in the heap. The child must be able to do everything:
 * free and resize the blocks of all threads that it can reach, allocate much, start threads, fork
 * again, and end by exit or _exit. */
#include "children.h"
#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, SLOTS = 300, FORKS = 50 };
typedef struct { size_t n; uint64_t seed; } Head;
static _Atomic(Head *) slot[SLOTS];
static atomic_int stop;

static Head *make(Random *r)
{
	size_t n = sizeof(Head) + (below(r, 200) ? below(r, 1500) : 150000);
	Head *h = malloc(n);
	CHECK(h);
	h->n = n;
	h->seed = next_random(r);
	fill(h + 1, n - sizeof *h, h->seed);
	return h;
}

static void verify(Head *h)
{
	VERIFY(h + 1, h->n - sizeof *h, h->seed);
}

static void *busy(void *number)
{
	Random r = random_from((uintptr_t)number + 1);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		/* A block is in the array only while it is whole: what a child finds is valid. */
		Head *h = atomic_exchange(&slot[below(&r, SLOTS)], NULL);
		if (h) {
			verify(h);
			if (below(&r, 4) == 0) {
				CHECK(h = realloc(h, h->n + 64));
				verify(h);
			}
			free(h);
		}
		h = make(&r);
		if ((h = atomic_exchange(&slot[below(&r, SLOTS)], h))) {
			verify(h);
			free(h);
		}
	}
	return NULL;
}

static void *child_thread(void *seed)
{
	use_heap((uintptr_t)seed, 300);
	for (int i = 0; i < SLOTS; i += 3) {
		Head *h = atomic_exchange(&slot[i], NULL);
		if (!h) continue;
		verify(h);
		free(h);
	}
	return NULL;
}

static void child(int round, int depth)
{
	for (int i = 0; i < SLOTS; i++) {
		Head *h = atomic_load(&slot[i]);
		if (h) verify(h);
	}
	/* The threads that made these are not here. */
	for (int i = 1; i < SLOTS; i += 3) {
		Head *h = atomic_exchange(&slot[i], NULL);
		if (!h) continue;
		if (i % 2) {
			CHECK(h = realloc(h, h->n * 2));
			verify(h);
		}
		CHECK(malloc_usable_size(h) >= h->n);
		free(h);
	}
	use_heap((uint64_t)round, 400);
	if (round % 4 == 0) {
		pthread_t thread[2];
		for (uintptr_t i = 0; i < COUNT(thread); i++)
			CHECK(!pthread_create(&thread[i], NULL, child_thread, (void *)i));
		use_heap(7, 400);
		if (depth) {
			pid_t pid = fork();
			if (!pid) child(round + 1, depth - 1);
			wait_for(pid, __LINE__);
		}
		for (size_t i = 0; i < COUNT(thread); i++) CHECK(!pthread_join(thread[i], NULL));
	}
	/* Without limit: what the lost threads held must not starve a long-lived child. */
	size_t before = resident_bytes();
	for (int i = 0; i < 12; i++) use_heap((uint64_t)i, 40);
	CHECK2(over(resident_bytes(), before) < 48 * MB, resident_bytes(), before);
	for (int i = 0; i < SLOTS; i++) {
		Head *h = atomic_exchange(&slot[i], NULL);
		if (h) verify(h);
		free(h);
	}
	if (round % 5 == 0) exit(0);
	_exit(0);
}

int main(void)
{
	pthread_t thread[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&thread[i], NULL, busy, (void *)i));
	for (int round = 0; round < FORKS; round++) {
		pid_t pid = fork();
		if (!pid) child(round, 1);
		use_heap((uint64_t)round, 100);
		wait_for(pid, __LINE__);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
	for (int i = 0; i < SLOTS; i++) {
		Head *h = atomic_load(&slot[i]);
		if (h) verify(h);
		free(h);
	}
	return 0;
}
