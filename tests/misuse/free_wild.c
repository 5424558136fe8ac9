/* Pointers that no process has are freed: the second page, and (VARIANT 1) a non-canonical address. */
#include "misuse.h"

int main(int argc, char **argv)
{
	victim(argc, argv);
	arm(CALL);
	free(hide((void *)(variant ? (uintptr_t)0x4141414141414140u : (uintptr_t)4096)));
	finish();
}
