/* A pointer to a global is freed. */
#include "misuse.h"

static _Alignas(16) char global[256];

int main(int argc, char **argv)
{
	victim(argc, argv);
	arm(CALL);
	free(hide(global + 64));
	finish();
}
