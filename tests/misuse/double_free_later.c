/* A block freed twice, with other frees and other sizes' allocations in between. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	free_neighbours();
	for (size_t n = 1; n < 20; n++) free(malloc(size > 1000 ? n : 4000 + n * 16));
	arm(CALL);
	free(hide(p));
	finish();
}
