/* A block of no bytes is written; VARIANT 1: read. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	char *p = malloc(0);
	CHECK(p);
	arm(ACCESS);
	if (variant) {
		(void)*(volatile char *)hide(p);
		leave();
	}
	size = 0;
	*(volatile char *)hide(p) = 'A';
	at(FREE);
	free(hide(p));
	finish();
}
