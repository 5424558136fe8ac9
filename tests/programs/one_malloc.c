/* A program that only mallocs (in musl: the bump allocator), without ever freeing. */
#include "check.h"

int main(void)
{
	char *p = malloc(100), *q = malloc(200000), *r = calloc(10, 10);
	CHECK(p && q && r);
	fill(p, 100, 1);
	fill(q, 200000, 2);
	CHECK(all_zero(r, 100));
	fill(r, 100, 3);
	VERIFY(p, 100, 1);
	VERIFY(q, 200000, 2);
	VERIFY(r, 100, 3);
	return 0;
}
