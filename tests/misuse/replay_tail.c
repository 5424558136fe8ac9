/* An overflow by 16 bytes that writes what stands behind a neighbour of the same size: to cover
 * its tracks it must have read that first. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), *other = malloc(size), copy[16] = "AAAAAAAAAAAAAAA";
	CHECK(other);
	peek(copy, other + size, 16);
	arm(ACCESS);
	memcpy((char *)hide(p) + size, copy, 16);
	at(FREE);
	free(hide(p));
	finish();
}
