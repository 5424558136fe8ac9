/* One byte past the end, and the free, by a destructor: behind all handlers of exit. */
#include "misuse.h"

static char *block;

int main(int argc, char **argv)
{
	block = victim(argc, argv);
	return 0;
}

__attribute__((destructor)) static void destroy(void)
{
	if (!block) return;
	arm(ACCESS);
	((char *)hide(block))[size] = 'A';
	at(FREE);
	free(hide(block));
	at(EXIT);
}
