/* One byte is written, VARIANT bytes behind the end; the block and its neighbours are freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	write_one(p, (ptrdiff_t)size + variant);
}
