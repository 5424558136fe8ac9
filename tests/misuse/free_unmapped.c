/* A pointer to where nothing was ever allocated is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	char *p = mmap(NULL, MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	CHECK(!munmap(p, MB));
	arm(CALL);
	free(hide(p + 4096));
	finish();
}
