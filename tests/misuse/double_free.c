/* A block freed twice, at once. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(CALL);
	free(hide(p));
	finish();
}
