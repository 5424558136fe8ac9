/* Robson's bad program (J. ACM 21, 1974): in round i it frees every block that does not lie over
 * an address congruent to a chosen offset modulo 2^i, the offset that frees least room, and fills
 * up with blocks of 2^i bytes. The live bytes never exceed the limit. */
#include "footprint.h"

/* Does the block lie over an address congruent to `offset` modulo `step`? */
static int lies_over(const Block *block, size_t offset, size_t step)
{
	size_t from = ((uintptr_t)block->at - offset) & (step - 1);
	return from == 0 || from + block->n > step;
}

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	size_t count = 0, offset = 0;
	Block *blocks = table(most / 16 * sizeof *blocks);
	for (size_t size = 16; size <= 64 * KB; size *= 2) {
		/* The half-step that keeps more. */
		size_t kept[2] = {0, 0};
		for (size_t i = 0; i < count; i++)
			for (int j = 0; j < 2; j++)
				if (lies_over(blocks + i, offset + (size_t)j * size / 2, size))
					kept[j] += size - blocks[i].n;
		if (size > 16 && kept[1] > kept[0]) offset += size / 2;
		size_t left = 0;
		for (size_t i = 0; i < count; i++) {
			if (lies_over(blocks + i, offset, size)) blocks[left++] = blocks[i];
			else put(blocks + i);
		}
		count = left;
		sample();
		while (live_bytes + size <= most) {
			blocks[count++] = get(size);
			if (count % 65536 == 0) sample();
		}
		sample();
	}
	check_slots();
	for (size_t i = 0; i < count; i++) put(blocks + i);
	finish();
}
