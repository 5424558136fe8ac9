/* VARIANT bytes (1) of text are written before the block, then the block and its neighbours are
 * freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = variant ? (size_t)variant : 1;
	arm(ACCESS);
	memset((char *)hide(p) - n, 'A', n);
	at(FREE);
	free(hide(p));
	finish();
}
