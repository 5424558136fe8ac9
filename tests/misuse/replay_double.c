/* A block freed twice; before the second time everything in and around it is as it was before the
 * first. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv), before[16], inside[64], after[16];
	size_t n = size < sizeof inside ? size : sizeof inside;
	int lower = peek(before, p - 16, 16), upper = peek(after, p + size, 16);
	memcpy(inside, p, n);
	free(hide(p));
	arm(ACCESS);
	memcpy(hide(p), inside, n);
	if (lower) memcpy(hide(p - 16), before, 16);
	if (upper) memcpy(hide(p + size), after, 16);
	at(CALL);
	free(hide(p));
	finish();
}
