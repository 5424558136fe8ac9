/* A block of no bytes is written. VARIANT, its last digit: 0 written at its address, 1 read there,
 * 2 and 3 eight bytes on, 4 and 5 one byte before; its first: 0 from malloc, 1 from calloc, 2 from
 * realloc, 3 from aligned_alloc. */
#include "misuse.h"

static char *none(long how)
{
	char *p;
	switch (how) {
	case 1: return calloc(0, 8);
	case 2:
		CHECK(p = malloc(size));
		return realloc(hide(p), 0);
	case 3: return aligned_alloc(16, 0);
	default: return malloc(0);
	}
}

int main(int argc, char **argv)
{
	static const long place[] = { 0, 8, -1 };
	victim(argc, argv);
	char *p = none(variant / 10);
	if (!p) skip("no bytes, no block");
	volatile char *at_byte = (char *)hide(p) + place[variant % 10 / 2];
	arm(ACCESS);
	if (variant % 2) {
		(void)*at_byte;
		leave();
	}
	size = 0;
	*at_byte = 'A';
	at(FREE);
	free(hide(p));
	finish();
}
