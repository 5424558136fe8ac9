/* C23's free_sized with another size than was asked for. */
#include "misuse.h"
#include "../programs/byssal_extras.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	arm();
	free_sized(hide(p), size * 2 + 64);
	return 0;
}
