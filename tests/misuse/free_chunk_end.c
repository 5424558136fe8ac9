/* A pointer past the end of the 4 MiB that a block lies in is freed; VARIANT 1: the last unit before it. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	uintptr_t end = ((uintptr_t)p | (4 * MB - 1)) + 1;
	arm(CALL);
	free(hide((void *)(variant ? end - 16 : end + 16)));
	finish();
}
