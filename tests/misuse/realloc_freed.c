/* A freed block is resized. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(CALL);
	char *q = realloc(hide(p), size * 2);
	(void)hide(q);
	finish();
}
