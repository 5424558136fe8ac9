/* A misaligned pointer into a block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm();
	free(hide(p + 8));
	return 0;
}
