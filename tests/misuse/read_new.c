/* A new block that stands where an old one was is read before it is written. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	char *q = reuse(p);
	arm(ACCESS);
	if (q) saw(look(hide(q + size - 16), 16));
	else saw(NEVER_REUSED);
	leave();
}
