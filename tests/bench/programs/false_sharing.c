/* Probes for false sharing: threads write many times to a small block of their own. In `active`
 * each allocates its blocks itself: do blocks of two threads share a cache line? In `passive` the
 * first of each was made by the main thread next to the others' first, and is freed by its user:
 * does the next block lie there again?
 * false_sharing active|passive THREADS BLOCKS WRITES */
#include "bench.h"

struct worker {
	struct block *first;
	long blocks, writes;
	uint64_t sum;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	if (w->first) block_free(w->first);
	for (long i = 0; i < w->blocks; i++) {
		struct block *b = block_new(8, (uint32_t)i);
		volatile uint32_t *word = &b->tag;
		for (long n = 0; n < w->writes; n++) *word = *word + 1;
		w->sum = mix(w->sum, block_free(b));
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int passive = argc > 1 && !strcmp(argv[1], "passive");
	int threads = (int)argument(argc, argv, 2, 2);
	long blocks = argument(argc, argv, 3, 1000), writes = argument(argc, argv, 4, 10000);
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	for (int i = 0; i < threads; i++) {
		w[i].blocks = blocks;
		w[i].writes = writes;
		if (passive) w[i].first = block_new(8, 0);
	}
	in_threads(threads, work, w, sizeof *w);
	uint64_t sum = 0;
	for (int i = 0; i < threads; i++) sum = mix(sum, w[i].sum);
	free(w);
	return report("false_sharing", sum, (uint64_t)blocks * (uint64_t)threads);
}
