/* A pointer into the program's own mapping is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	char *p = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
	memset(p, 0x41, MB);
	arm(CALL);
	free(hide(p + 8192));
	finish();
}
