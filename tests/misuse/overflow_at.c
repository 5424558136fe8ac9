/* One byte is written, VARIANT bytes behind the end; the block and its neighbours are freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	*((volatile char *)hide(p) + size + variant) = 'A';
	at(FREE);
	free(hide(p));
	finish();
}
