/* One byte past the end; another thread frees the block, the owner goes on. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(ACCESS);
	((char *)hide(p))[size] = 'A';
	at(FREE);
	free_elsewhere(p);
	finish();
}
