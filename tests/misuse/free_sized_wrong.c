/* C23's free_sized with another size than was asked for. */
#include "misuse.h"

/* Where the allocator has none, the program says so. */
__attribute__((weak)) void free_sized(void *p, size_t n);

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	if (!free_sized) skip("no free_sized");
	arm(CALL);
	free_sized(hide(p), size * 2 + 64);
	finish();
}
