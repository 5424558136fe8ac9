/* Cross-thread mixes: each thread keeps a list that it frees partly from its newest and partly
 * from its oldest end, and swaps blocks with a shelf that all threads share; threads end and are
 * made anew every round, while the shelf keeps what they left.
 * shelf THREADS OPERATIONS ROUNDS */
#include "bench.h"

#include <stdatomic.h>

enum { SHELF = 1024 };

static _Atomic(struct block *) shelf[SHELF];

struct worker {
	long operations;
	uint64_t seed, sum;
	APART;
};

static struct block *some_block(uint64_t *seed)
{
	/* Mostly small, one in a hundred up to 32 KiB. */
	size_t size = below(seed, 100) ? log_size(seed, 8, 1024) : log_size(seed, 1024, 32768);
	return block_new(size, draw(seed));
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct block **list = NULL;
	long used = 0, room = 0;
	for (long i = 0; i < w->operations; i++) {
		if (used == room) {
			room = room ? room * 2 : 64;
			list = checked(realloc(list, sizeof *list * (size_t)room));
		}
		list[used++] = some_block(&w->seed);
		if (below(&w->seed, 4) == 0) {
			struct block **mine = &list[below(&w->seed, (uint32_t)used)];
			*mine = atomic_exchange(&shelf[below(&w->seed, SHELF)], *mine);
		}
		if (used < 200 + (long)below(&w->seed, 800)) continue;
		long count = used / 2;
		if (below(&w->seed, 2)) {
			for (long k = 0; k < count; k++) w->sum += block_free(list[--used]);
		} else {
			for (long k = 0; k < count; k++) w->sum += block_free(list[k]);
			memmove(list, list + count, sizeof *list * (size_t)(used -= count));
		}
	}
	while (used) w->sum += block_free(list[--used]);
	free(list);
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = (int)argument(argc, argv, 1, 2);
	long operations = argument(argc, argv, 2, 200000), rounds = argument(argc, argv, 3, 5);
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	uint64_t sum = 0, seed = 0;
	for (int i = 0; i < SHELF; i++) atomic_init(&shelf[i], some_block(&seed));
	for (long round = 0; round < rounds; round++) {
		for (int i = 0; i < threads; i++)
			w[i] = (struct worker){operations / rounds, (uint64_t)(round * threads + i + 1), 0};
		in_threads(threads, work, w, sizeof *w);
		for (int i = 0; i < threads; i++) sum += w[i].sum;
	}
	for (int i = 0; i < SHELF; i++) sum += block_free(atomic_load(&shelf[i]));
	free(w);
	return report("shelf", mix(0, sum), (uint64_t)operations * (uint64_t)threads);
}
