/* Aligned blocks: random alignments of 32 bytes to 64 KiB among unaligned small ones; half of the
 * aligned ones are freed, then half of the small ones, and others are taken; ten times over. */
#include "footprint.h"

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	Random random = random_from(3);
	Block *blocks = table(most / 16 * sizeof *blocks);
	size_t count = 0;
	for (int round = 0; round < 10; round++) {
		while (live_bytes < most) {
			size_t align = (size_t)16 << below(&random, 13);
			if (below(&random, 4)) blocks[count++] = get(1 + below(&random, 300));
			else blocks[count++] = get_aligned(align * (1 + below(&random, 3)), align);
		}
		sample();
		for (int small = 0; small < 2; small++) {
			size_t left = 0;
			for (size_t i = 0; i < count; i++) {
				if ((blocks[i].n <= 300) == small && below(&random, 2)) put(blocks + i);
				else blocks[left++] = blocks[i];
			}
			count = left;
			sample();
		}
	}
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
