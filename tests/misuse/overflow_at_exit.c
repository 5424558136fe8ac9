/* One byte past the end; the block is the last that is ever freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = malloc_usable_size(p);
	arm();
	((char *)hide(p))[n] = 0x40; /* even: differs from every guard */
	free(p);
	return 0;
}
