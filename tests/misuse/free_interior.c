/* An aligned pointer into a block is freed; VARIANT 1: a page on, if the block is that long. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(CALL);
	free(hide(p + (size > 4096 && variant ? 4096 : 16)));
	finish();
}
