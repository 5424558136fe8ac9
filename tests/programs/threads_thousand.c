/* A thousand threads alive, each with a few live blocks of many sizes: whatever is kept for each
 * thread must not run out while there is memory. */
#include "check.h"
#include <pthread.h>

enum { THREADS = 1000, BLOCKS = 40 };
static pthread_barrier_t started, done;

static void *work(void *number)
{
	unsigned char *p[BLOCKS], *first = malloc(1);
	CHECK(first);
	pthread_barrier_wait(&started);
	for (size_t i = 0; i < BLOCKS; i++) {
		CHECK2(p[i] = malloc(16 + i * 16), (uintptr_t)number, i);
		fill(p[i], 16 + i * 16, i + (uintptr_t)number);
	}
	pthread_barrier_wait(&done);
	for (size_t i = 0; i < BLOCKS; i++) {
		VERIFY(p[i], 16 + i * 16, i + (uintptr_t)number);
		free(p[i]);
	}
	free(first);
	return NULL;
}

int main(void)
{
	static pthread_t thread[THREADS];
	pthread_attr_t attributes;
	size_t start = resident_bytes();
	CHECK(!pthread_attr_init(&attributes));
	CHECK(!pthread_attr_setstacksize(&attributes, 64 * KB));
	CHECK(!pthread_barrier_init(&started, NULL, THREADS));
	CHECK(!pthread_barrier_init(&done, NULL, THREADS + 1));
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], &attributes, work, (void *)i))
			skip("no thousand threads here");
	pthread_barrier_wait(&done);
	/* 13 KB live each, and a stack of which two pages are touched. */
	size_t peak = over(resident_bytes(), start);
	CHECK2(peak < 128 * MB, peak, start);
	for (size_t i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
	size_t left = over(resident_bytes(), start);
	CHECK2(left < 32 * MB, left, peak);
	return 0;
}
