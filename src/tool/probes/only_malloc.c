/* Never frees. With an argument it writes to a block of 0 bytes. */
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	(void)argv;
	char *p = malloc(1000), *q = calloc(10, 100);
	if (!p || !q) return 1;
	memset(p, 1, 1000);
	if (argc > 1) *(volatile char *)malloc(0) = 1;
	return q[999];
}
