/* A misaligned pointer into a block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(CALL);
	free(hide(p + 8));
	finish();
}
