/* A freed block is read, at once. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(ACCESS);
	saw(look(hide(p + size - 16), 16));
	leave();
}
