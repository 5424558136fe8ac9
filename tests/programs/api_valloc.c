/* The old page-aligned functions belong to the same heap: free must know their blocks. */
#include "check.h"

int main(void)
{
	size_t page = page_bytes();
	for (size_t n = 1; n < 300000; n = n * 5 + 3) {
		unsigned char *p = valloc(n), *q = malloc(n);
		CHECK(p && q && aligned(p, page));
		fill(p, n, 1);
		fill(q, n, 2);
		VERIFY(p, n, 1);
		free(p);
		free(q);
#ifdef __GLIBC__
		p = pvalloc(n);
		CHECK(p && aligned(p, page));
		n = (n + page - 1) & ~(page - 1);
		fill(p, n, 1);
		CHECK(malloc_usable_size(p) >= n);
		free(p);
#endif
	}
	return 0;
}
