/* A sawtooth of sizes: fill up with one size, free all but a sixteenth at random, go on with a
 * size a quarter larger; at the end of each tooth half of the survivors go, and it starts anew. */
#include "footprint.h"

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	Random random = random_from(1);
	Block *blocks = table(most / 16 * sizeof *blocks);
	size_t count = 0;
	for (int tooth = 0; tooth < 3; tooth++) {
		for (size_t size = 24; size < 64 * KB; size += size / 4) {
			size_t old = count;
			while (live_bytes + size <= most) blocks[count++] = get(size);
			sample();
			size_t left = old;
			for (size_t i = old; i < count; i++) {
				if (below(&random, 16) == 0) blocks[left++] = blocks[i];
				else put(blocks + i);
			}
			count = left;
			sample();
		}
		size_t left = 0;
		for (size_t i = 0; i < count; i++) {
			if (below(&random, 2)) blocks[left++] = blocks[i];
			else put(blocks + i);
		}
		count = left;
		thin();
	}
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
