/* A pointer one byte off is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(CALL);
	free(hide(p + 1));
	finish();
}
