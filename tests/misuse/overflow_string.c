/* strcpy of a string as long as the block: the terminator is one too many. Where a NUL stood behind
 * the block before, nothing is changed. */
#include "misuse.h"

static char text[1 << 20];

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	memset(text, 'A', size);
	arm(ACCESS);
	char before = ((volatile char *)hide(p))[size];
	strcpy(hide(p), text);
	if (!before) saw(HARMLESS);
	at(FREE);
	free(hide(p));
	finish();
}
