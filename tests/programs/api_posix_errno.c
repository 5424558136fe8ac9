/* posix_memalign tells by its result; errno and the pointer stay as they were. */
#include "check.h"

int main(void)
{
	void *keep = &keep, *p = keep;
	volatile size_t big = PTRDIFF_MAX, bad = 24;
	errno = 1234;
	CHECK(posix_memalign(&p, 64, big) == ENOMEM);
	CHECK(errno == 1234 && p == keep);
	CHECK(posix_memalign(&p, bad, 100) == EINVAL);
	CHECK(errno == 1234 && p == keep);
	CHECK(posix_memalign(&p, 64, 100) == 0);
	CHECK(p != keep && aligned(p, 64));
	free(p);
	return 0;
}
