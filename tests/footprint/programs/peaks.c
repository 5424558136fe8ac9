/* Many threads, each with its peak at a different time: they live all the while, and one after
 * the other fills up with random sizes and frees all but a thirty-second. */
#include "footprint.h"

enum { THREADS = 16 };
static Block *blocks[THREADS];
static size_t counts[THREADS];
static pthread_barrier_t barrier;

static void work(unsigned number)
{
	Random random = random_from(number);
	for (unsigned turn = 0; turn < 2 * THREADS; turn++) {
		pthread_barrier_wait(&barrier);
		if (turn % THREADS == number) {
			size_t left = 0;
			while (live_bytes < most) blocks[number][counts[number]++] = get(random_size(&random) / 8 + 1);
			sample();
			for (size_t i = 0; i < counts[number]; i++) {
				if (below(&random, 32) == 0) blocks[number][left++] = blocks[number][i];
				else put(blocks[number] + i);
			}
			counts[number] = left;
			thin();
		}
	}
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < counts[number]; i++) put(blocks[number] + i);
	pthread_barrier_wait(&barrier);
}

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	static Worker workers[THREADS];
	CHECK(!pthread_barrier_init(&barrier, NULL, THREADS));
	for (unsigned i = 0; i < THREADS; i++) blocks[i] = table(most / 16 * sizeof **blocks);
	for (unsigned i = 0; i < THREADS; i++) start_worker(workers + i, i, work);
	for (unsigned i = 0; i < THREADS; i++) await_worker(workers + i);
	finish();
}
