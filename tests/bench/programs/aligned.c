/* Aligned allocations of every kind, among plain ones: mostly to a cache line, some to a page, a
 * few to 64 KiB; random replacement in a small live set.
 * aligned LIVE OPERATIONS */
#define _POSIX_C_SOURCE 200112L
#include "bench.h"

static struct block *aligned_new(uint64_t *seed)
{
	uint32_t dice = below(seed, 100);
	size_t size = log_size(seed, 16, 2048), align = 64;
	if (dice < 30) return block_new(size, draw(seed));
	if (dice < 50) align = (size_t)16 << below(seed, 5);
	else if (dice >= 99) align = 65536;
	else if (dice >= 94) align = 4096;
	void *p;
	if (dice % 2) {
		p = aligned_alloc(align, (size + align - 1) / align * align);
	} else if (posix_memalign(&p, align, size)) {
		p = NULL;
	}
	if ((uintptr_t)p % align) fail("an alignment");
	return block_mark(p, size, draw(seed));
}

int main(int argc, char **argv)
{
	long live = argument(argc, argv, 1, 2000), operations = argument(argc, argv, 2, 200000);
	struct block **set = checked(calloc((size_t)live, sizeof *set));
	uint64_t seed = 1, sum = 0;
	for (long i = 0; i < operations; i++) {
		struct block **place = &set[below(&seed, (uint32_t)live)];
		if (*place) sum = mix(sum, block_free(*place));
		*place = aligned_new(&seed);
	}
	for (long i = 0; i < live; i++)
		if (set[i]) sum = mix(sum, block_free(set[i]));
	free(set);
	return report("aligned", sum, (uint64_t)operations);
}
