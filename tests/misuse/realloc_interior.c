/* A pointer into a block is resized. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm(CALL);
	char *q = realloc(hide(p + 16), size * 2);
	(void)hide(q);
	finish();
}
