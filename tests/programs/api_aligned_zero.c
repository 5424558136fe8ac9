/* Alignment 0 is not a power of two: EINVAL. (mallocng accepts it.) */
#include "check.h"

int main(void)
{
	for (size_t n = 0; n < 1000000; n = n * 7 + 1) {
		volatile size_t align = 0;
		errno = 0;
		void *volatile p = aligned_alloc(align, n);
		CHECK2(!p, n, p);
		CHECK2(errno == EINVAL, n, errno);
	}
	return 0;
}
