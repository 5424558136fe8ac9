/* A block freed by another thread, then by its owner. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free_elsewhere(p);
	arm(CALL);
	free(hide(p));
	finish();
}
