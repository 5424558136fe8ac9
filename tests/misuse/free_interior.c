/* An aligned pointer into a block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm();
	free(hide(p + (size >= 4096 ? 4096 : 16)));
	return 0;
}
