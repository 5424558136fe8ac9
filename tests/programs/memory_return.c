/* A peak of 200 MB of small blocks is given back to the system when they are freed, in whatever
 * order and by whatever thread. Argument: fifo, random, thread. */
#include "check.h"
#include <pthread.h>

enum { BLOCKS = 500000, THREADS = 4 };
static struct { unsigned char *p; size_t n; } *block;

static void make(size_t from, size_t to)
{
	Random r = random_from(from);
	for (size_t i = from; i < to; i++) {
		block[i].n = below(&r, 10) ? below(&r, 500) : below(&r, 4000);
		CHECK(block[i].p = malloc(block[i].n));
		fill(block[i].p, block[i].n, i);
	}
}

static void drop(size_t i)
{
	if (!block[i].p) return;
	VERIFY(block[i].p, block[i].n, i);
	free(block[i].p);
	block[i].p = NULL;
}

static void *thread_make(void *number)
{
	size_t part = BLOCKS / THREADS, me = (uintptr_t)number;
	make(me * part, (me + 1) * part);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "fifo";
	CHECK(block = calloc(BLOCKS, sizeof *block));
	memset(block, 0, BLOCKS * sizeof *block);
	size_t start = resident_bytes(), peak[2], left[2];
	for (int round = 0; round < 2; round++) {
		if (!strcmp(how, "thread")) {
			pthread_t thread[THREADS];
			for (uintptr_t i = 0; i < THREADS; i++)
				CHECK(!pthread_create(&thread[i], NULL, thread_make, (void *)i));
			for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
		} else {
			make(0, BLOCKS);
		}
		peak[round] = over(resident_bytes(), start);
		CHECK2(peak[round] > 100 * MB, peak[round], 0);
		Random r = random_from(5);
		if (strcmp(how, "fifo"))
			for (size_t i = 0; i < 2 * BLOCKS; i++) drop(below(&r, BLOCKS));
		for (size_t i = 0; i < BLOCKS; i++) drop(i);
		left[round] = over(resident_bytes(), start);
		CHECK2(left[round] < peak[round] / 16, left[round], peak[round]);
	}
	/* The second peak reuses the first one's memory. */
	CHECK2(peak[1] < peak[0] + peak[0] / 8, peak[1], peak[0]);
	free(block);
	return 0;
}
