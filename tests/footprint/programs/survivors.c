/* One survivor in each group: for one size after the other, fill up, then keep each 32nd block
 * only. What is left is the worst that groups of 32 slots can be made to hold. */
#include "footprint.h"

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	static const size_t sizes[] = {15, 40, 100, 230, 500, 1000, 2000, 4000, 10000, 30000};
	Block *blocks = table(most / 8 * sizeof *blocks);
	size_t count = 0;
	for (size_t s = 0; s < COUNT(sizes); s++) {
		size_t old = count, left = count;
		while (live_bytes + sizes[s] <= most) blocks[count++] = get(sizes[s]);
		sample();
		for (size_t i = old; i < count; i++) {
			if ((i - old) % 32 == 0) blocks[left++] = blocks[i];
			else put(blocks + i);
		}
		count = left;
		thin();
	}
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
