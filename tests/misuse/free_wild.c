/* Pointers that no process has are freed: the second page, and a non-canonical address. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	int low = argc > 1 && !strcmp(argv[1], "24");
	arm();
	free(hide((void *)(low ? (uintptr_t)4096 : (uintptr_t)0x4141414141414140u)));
	return 0;
}
