/* Never frees: the linker must leave it musl's bump allocator. */
#include <stdlib.h>
#include <string.h>

int main(void)
{
	char *p = malloc(1000), *q = calloc(10, 100);
	if (!p || !q) return 1;
	memset(p, 1, 1000);
	return q[999];
}
