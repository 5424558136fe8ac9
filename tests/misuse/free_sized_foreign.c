/* C23's free_sized of a global. */
#include "misuse.h"

/* Where the allocator has none, the program says so. */
__attribute__((weak)) void free_sized(void *p, size_t n);
static _Alignas(16) char global[256];

int main(int argc, char **argv)
{
	victim(argc, argv);
	if (!free_sized) skip("no free_sized");
	arm(CALL);
	free_sized(hide(global + 64), 100);
	finish();
}
