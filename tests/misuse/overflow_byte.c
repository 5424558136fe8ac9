/* One byte is written past the end, then the block is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = malloc_usable_size(p);
	arm();
	((char *)hide(p))[n] = 0x40; /* even: differs from every guard */
	free(p);
	more_frees();
	return 0;
}
