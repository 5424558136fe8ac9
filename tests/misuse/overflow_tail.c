/* VARIANT bytes (32) of text are written past the end, then the block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	memset((char *)hide(p) + size, 'A', variant ? (size_t)variant : 32);
	at(FREE);
	free(hide(p));
	finish();
}
