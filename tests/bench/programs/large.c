/* Large blocks: twenty places, each given a new block of 4 to 25 MiB at random times. One byte in
 * each page is written.
 * large OPERATIONS */
#include "bench.h"

enum { LIVE = 20, PAGE = 4096 };

static struct block *large_new(uint64_t *seed)
{
	size_t size = ((size_t)4 << 20) + (size_t)below(seed, 21 << 8) * PAGE + below(seed, PAGE);
	struct block *b = block_new(size, draw(seed));
	for (size_t i = PAGE; i < size - 1; i += PAGE) ((uint8_t *)b)[i] = (uint8_t)(i / PAGE);
	return b;
}

static uint32_t large_free(struct block *b)
{
	for (size_t i = PAGE; i < b->size - 1u; i += PAGE * 16)
		if (((uint8_t *)b)[i] != (uint8_t)(i / PAGE)) fail("a page");
	return block_free(b);
}

int main(int argc, char **argv)
{
	long operations = argument(argc, argv, 1, 100);
	struct block *live[LIVE] = {NULL};
	uint64_t seed = 1, sum = 0;
	for (long i = 0; i < operations; i++) {
		struct block **place = &live[below(&seed, LIVE)];
		if (*place) sum = mix(sum, large_free(*place));
		*place = large_new(&seed);
	}
	for (int i = 0; i < LIVE; i++)
		if (live[i]) sum = mix(sum, large_free(live[i]));
	return report("large", sum, (uint64_t)operations);
}
