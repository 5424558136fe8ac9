/* strcpy of a string as long as the block: the terminator is one too many. */
#include "misuse.h"

static char text[1 << 20];

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	memset(text, 'A', size);
	arm(ACCESS);
	strcpy(hide(p), text);
	at(FREE);
	free(hide(p));
	finish();
}
