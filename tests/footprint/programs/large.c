/* Large blocks of mixed sizes, 64 KiB to 4 MiB, the larger the rarer, replaced at random. */
#include "footprint.h"

int main(int argc, char **argv)
{
	begin(argc, argv, 128 * MB);
	Random random = random_from(4);
	Block *blocks = table(4096 * sizeof *blocks);
	size_t count = 0;
	for (int i = 0; i < (quick ? 1000 : 4000); i++) {
		size_t size = (64 * KB << below(&random, 6)) + below(&random, 64 * KB);
		while (live_bytes + size > most) {
			size_t victim = below(&random, count);
			put(blocks + victim);
			blocks[victim] = blocks[--count];
		}
		if (live_bytes + size <= most) blocks[count++] = get(size);
		if (i % 16 == 0) sample();
	}
	/* Most go: what stays is what a program idles on. */
	while (count > 8) put(blocks + --count);
	thin();
	check_slots();
	while (count) put(blocks + --count);
	finish();
}
