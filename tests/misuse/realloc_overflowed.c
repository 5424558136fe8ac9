/* One byte is written past the end, then the block is resized so that it moves. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	((char *)hide(p))[size] = 'A';
	at(FREE);
	char *q = realloc(hide(p), size + 100000);
	at(LATER);
	free(hide(q));
	finish();
}
