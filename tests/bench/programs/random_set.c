/* Random replacement in a live set: the pattern of a database's or a cache's heap.
 * random_set KIND LIVE OPERATIONS [THREADS]
 * KIND is how sizes are drawn: spread (16 to 512 bytes), powers (8 bytes to 16 KiB), primes (up to
 * 16381 bytes), skewed (4 bytes to 32 KiB, small ones far more often). Each thread has a set of
 * its own. */
#include "bench.h"

static const uint16_t primes[] = {11, 13, 17, 19, 23, 29, 31, 37, 41, 53, 61, 67, 79, 97, 113,
	127, 131, 157, 191, 223, 251, 257, 307, 383, 449, 509, 521, 641, 769, 1021, 1031, 1283,
	1531, 2039, 2053, 3067, 4093, 4099, 6143, 8191, 8209, 12281, 16381};

static const char *kind;

static size_t some_size(uint64_t *seed)
{
	if (kind[1] == 'o') return (size_t)8 << below(seed, 12);
	if (kind[1] == 'r') return primes[below(seed, sizeof primes / sizeof *primes)];
	if (kind[1] == 'p') return log_size(seed, 16, 512);
	/* The inverse square of an even draw: half below 64 bytes, a hundredth above 4 KiB. */
	uint64_t x = 1 + below(seed, 180);
	size_t size = (size_t)(1036800 / (x * x));
	return size < 8 ? 8 : size > 32768 ? 32768 : size;
}

struct worker {
	long live, operations;
	uint64_t seed, sum;
	APART;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct block **set = checked(malloc(sizeof *set * (size_t)w->live));
	for (long i = 0; i < w->live; i++) set[i] = block_new(some_size(&w->seed), draw(&w->seed));
	for (long i = 0; i < w->operations; i++) {
		struct block **place = &set[below(&w->seed, (uint32_t)w->live)];
		w->sum = mix(w->sum, block_free(*place));
		*place = block_new(some_size(&w->seed), draw(&w->seed));
	}
	for (long i = 0; i < w->live; i++) w->sum = mix(w->sum, block_free(set[i]));
	free(set);
	return NULL;
}

int main(int argc, char **argv)
{
	kind = argc > 1 ? argv[1] : "spread";
	long live = argument(argc, argv, 2, 1000), operations = argument(argc, argv, 3, 1000000);
	int threads = (int)argument(argc, argv, 4, 1);
	if (threads == 1) {
		struct worker w = {live, operations, 1, 0};
		work(&w);
		return report("random_set", w.sum, (uint64_t)(live + operations));
	}
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	for (int i = 0; i < threads; i++)
		w[i] = (struct worker){live, operations, (uint64_t)i + 1, 0};
	in_threads(threads, work, w, sizeof *w);
	uint64_t sum = 0;
	for (int i = 0; i < threads; i++) sum = mix(sum, w[i].sum);
	free(w);
	return report("random_set", sum, (uint64_t)(live + operations) * (uint64_t)threads);
}
