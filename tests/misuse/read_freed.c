/* The end of a freed block is read, at once. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t n = size < 16 ? size : 16;
	free(hide(p));
	arm(ACCESS);
	saw(look(hide(p + size - n), n));
	leave();
}
