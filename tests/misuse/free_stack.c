/* A pointer into the stack is freed. */
#include "misuse.h"

int main(int argc, char **argv)
{
	_Alignas(16) char local[256];
	victim(argc, argv);
	memset(local, 0, sizeof local);
	arm(CALL);
	free(hide(local + 64));
	finish();
}
