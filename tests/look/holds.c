/* Holds blocks of many sizes in several threads, tells how many and how long they are, and waits.
 *
 *     holds THREADS [FILE]       FILE: where byssal_dump_heap writes, if there is one
 *
 * Threads free each other's blocks, so that some are deferred and some wait to be collected. Prints
 * "ready BLOCKS BYTES" for all blocks of this program, by what malloc_usable_size says. */
#include "../programs/check.h"
#include <stdio.h>
#include <malloc.h>
#include <pthread.h>

int byssal_dump_heap(FILE *) __attribute__((weak));

enum { EACH = 600, MOST = 64 };
static char *blocks[MOST][EACH];
static pthread_barrier_t all;
static int threads;

static size_t length(int i)
{
	static const size_t lengths[] = { 1, 15, 16, 100, 500, 671, 672, 1000, 5000, 20000, 140000 };
	return i % 97 == 0 ? 300000 : lengths[i % 11] + (size_t)i % 7;
}

static void *work(void *number)
{
	int me = (int)(intptr_t)number, next = (me + 1) % threads;
	char name[16];
	snprintf(name, sizeof name, "worker %d", me);
	pthread_setname_np(pthread_self(), name);
	for (int i = 0; i < EACH; i++) CHECK(blocks[me][i] = malloc(length(i + me)));
	pthread_barrier_wait(&all);
	for (int i = 0; i < EACH; i += 3) {
		free(blocks[next][i]);
		blocks[next][i] = 0;
	}
	pthread_barrier_wait(&all);
	for (int i = 1; i < EACH; i += 5) {
		if (i % 3 == 0) continue;
		free(blocks[me][i]);
		blocks[me][i] = 0;
	}
	pthread_barrier_wait(&all);
	pause();
	return 0;
}

int main(int argc, char **argv)
{
	CHECK(argc > 1);
	threads = atoi(argv[1]);
	CHECK(threads > 0 && threads <= MOST);
	FILE *file = argc > 2 && byssal_dump_heap ? fopen(argv[2], "w") : 0;
	static char buffer[1 << 16];
	if (file) setvbuf(file, buffer, _IOFBF, sizeof buffer);
	pthread_barrier_init(&all, 0, (unsigned)threads + 1);
	for (int i = 0; i < threads; i++) {
		pthread_t thread;
		CHECK(pthread_create(&thread, 0, work, (void *)(intptr_t)i) == 0);
	}
	for (int i = 0; i < 3; i++) pthread_barrier_wait(&all);
	size_t count = 0, bytes = 0;
	for (int i = 0; i < threads; i++)
		for (int j = 0; j < EACH; j++)
			if (blocks[i][j]) count++, bytes += malloc_usable_size(blocks[i][j]);
	if (file) {
		/* The first write of a stream may allocate. */
		fflush(file);
		CHECK(byssal_dump_heap(file) == 0);
		fflush(file);
	}
	char line[64];
	int n = snprintf(line, sizeof line, "ready %zu %zu\n", count, bytes);
	CHECK(write(1, line, (size_t)n) == n);
	pause();
}
