/* A forged block: what stands before a neighbour is copied into a block, and the pointer behind the
 * copy freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), *other = malloc(size), copy[16];
	CHECK(other);
	arm(CALL);
	if (peek(copy, other - 16, 16)) memcpy(hide(p), copy, 16);
	free(hide(p + 16));
	finish();
}
