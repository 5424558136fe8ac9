/* A pointer to a global is resized. */
#include "misuse.h"

static _Alignas(16) char global[256];

int main(int argc, char **argv)
{
	victim(argc, argv);
	arm(CALL);
	char *q = realloc(hide(global + 64), size * 2);
	(void)hide(q);
	finish();
}
