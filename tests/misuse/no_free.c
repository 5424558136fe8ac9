/* A program without any free: linked statically it may get another allocator than one that frees.
 * VARIANT 0: a block of no bytes is written; 1: read; 2: a byte of text past the end of a block. */
#include "misuse.h"

int main(int argc, char **argv)
{
	begin(argc, argv);
	for (size_t i = 0; warm && i < NEIGHBOURS; i++) {
		CHECK(neighbour[i] = malloc(size));
		touch(neighbour[i], 0x22);
	}
	if (variant < 2) size = 0;
	volatile char *p = malloc(size);
	if (!p) skip("no bytes, no block");
	arm(ACCESS);
	if (variant == 1) (void)p[size];
	else p[size] = 'A';
	leave();
}
