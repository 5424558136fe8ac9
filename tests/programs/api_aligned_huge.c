/* Every power of two as alignment, up to what no address space has: success is aligned, writable
 * and freeable, failure is ENOMEM. (mallocng gave 2^32 and crashed in free.) */
#include "check.h"

/* There must be an address up to `SURE`, and may be as many bytes up to `MOST`. */
enum { BITS = 8 * sizeof(size_t), SURE = BITS == 64 ? 31 : 24, MOST = BITS == 64 ? 40 : 28 };

static const size_t sizes[] = { 0, 1, 100, 4096, 5000, 131072, 3000000 };

static void *try(size_t align, size_t n, size_t *failures)
{
	errno = 0;
	unsigned char *p = aligned_alloc(align, n);
	if (!p) {
		CHECK2(errno == ENOMEM, align, errno);
		++*failures;
		return NULL;
	}
	CHECK2(aligned(p, align), p, align);
	CHECK2(malloc_usable_size(p) >= n, align, n);
	if (n < 10000) {
		fill(p, n, align);
	} else {
		p[0] = 7;
		p[n - 1] = 9;
	}
	return p;
}

int main(void)
{
	size_t failures = 0;
	for (int bit = 4; bit < BITS; bit++) {
		size_t align = (size_t)1 << bit;
		void *p[COUNT(sizes)];
		for (size_t i = 0; i < COUNT(sizes); i++) p[i] = try(align, sizes[i], &failures);
		if (bit <= SURE)
			for (size_t i = 0; i < COUNT(sizes); i++) CHECK2(p[i], align, sizes[i]);
		for (size_t i = 0; i < COUNT(sizes); i++) {
			size_t k = (i * 3 + 2) % COUNT(sizes);
			if (!p[k]) continue;
			if (sizes[k] < 10000) VERIFY(p[k], sizes[k], align);
			else CHECK(((char *)p[k])[0] == 7 && ((char *)p[k])[sizes[k] - 1] == 9);
			if (k % 2) {
				/* Some leave by realloc. */
				char *q = realloc(p[k], sizes[k] + 200000);
				CHECK2(q, align, sizes[k]);
				if (sizes[k] < 10000) VERIFY(q, sizes[k], align);
				q[sizes[k] + 199999] = 1;
				p[k] = q;
			}
			free(p[k]);
		}
		/* As large as its alignment; only the ends are touched. */
		void *q = bit <= MOST ? try(align, align, &failures) : NULL;
		free(q);
	}
	/* No address space holds an object at 2^62. (One of 32 bits may, at 2^31.) */
	if (BITS == 64) CHECK(!aligned_alloc(SIZE_MAX / 4 + 1, 16));
	if (BITS == 64) CHECK(!aligned_alloc(SIZE_MAX / 2 + 1, 16));
	/* What was reserved to align has been given back. */
	CHECK2(resident_bytes() < 64 * MB, resident_bytes(), 0);
	/* Address space: a chunk table or an arena may be reserved, but not what aligning took. */
	CHECK2(mapped_bytes() < (uint64_t)64 << 30, mapped_bytes(), failures);
	return 0;
}
