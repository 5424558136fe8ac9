/* A peak and a plateau: a random live set of sizes as programs ask for them, replaced at random,
 * then nine tenths are freed at random, and the rest is worked on for a while. */
#include "footprint.h"

int main(int argc, char **argv)
{
	begin(argc, argv, 64 * MB);
	Random random = random_from(5);
	Block *blocks = table(MB * sizeof *blocks);
	size_t count = 0;
	while (live_bytes < most) blocks[count++] = get(random_size(&random) / 4 + 1);
	sample();
	for (size_t i = 0; i < 4 * count; i++) {
		Block *block = blocks + below(&random, count);
		put(block);
		*block = get(random_size(&random) / 4 + 1);
		if (i % 4096 == 0) sample();
	}
	sample();
	size_t left = 0;
	for (size_t i = 0; i < count; i++) {
		if (below(&random, 10) == 0) blocks[left++] = blocks[i];
		else put(blocks + i);
	}
	count = left;
	sample();
	for (size_t i = 0; i < 10 * count; i++) {
		Block *block = blocks + below(&random, count);
		put(block);
		*block = get(random_size(&random) / 4 + 1);
		if (i % 4096 == 0) sample();
	}
	thin();
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
