/* A block freed by its owner, then by another thread. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(CALL);
	free_elsewhere(p);
	finish();
}
