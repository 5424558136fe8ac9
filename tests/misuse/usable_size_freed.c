/* The usable size of a freed block is asked for. */
#include "misuse.h"

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	free(hide(p));
	arm(CALL);
	volatile size_t n = malloc_usable_size(hide(p));
	(void)n;
	finish();
}
