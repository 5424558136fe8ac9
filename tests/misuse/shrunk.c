/* A block is shrunk to half by realloc; then what was its second half is written, eight bytes right
 * behind the new end, and the block freed. VARIANT 1: its last eight bytes; 2: they are read, right
 * behind the new end; 3: the last ones. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = size / 2;
	memset(p, 0x11, size);
	char *q = realloc(hide(p), n), *end = q + (variant & 1 ? size - 8 : n);
	CHECK(q);
	if (q != p) skip("realloc moved the block");
	arm(ACCESS);
	if (variant >= 2) {
		saw(look(hide(end), 8));
		leave();
	}
	memset(hide(end), 'A', 8);
	at(FREE);
	free(hide(q));
	finish();
}
