/* The usable size of a global is asked for. */
#include "misuse.h"

static _Alignas(16) char global[256];

int main(int argc, char **argv)
{
	victim(argc, argv);
	arm(CALL);
	volatile size_t n = malloc_usable_size(hide(global + 64));
	(void)n;
	finish();
}
