/* One byte past the end; the block is the last that is ever freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	((char *)hide(p))[size] = 'A';
	at(FREE);
	free(hide(p));
	leave();
}
