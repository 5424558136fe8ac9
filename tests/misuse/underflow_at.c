/* One byte is written, VARIANT bytes before the block; it and its neighbours are freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	write_one(p, -variant);
}
