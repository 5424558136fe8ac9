/* A byte of text is written past the end, then the block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	((char *)hide(p))[size] = 'A';
	at(FREE);
	free(hide(p));
	finish();
}
