/* realloc keeps contents over every boundary, fails without loss, and realloc(p, 0) leaks nothing. */
#include "check.h"

static const size_t small[] = {
	1, 2, 8, 11, 12, 15, 16, 17, 24, 27, 28, 29, 31, 32, 33, 48, 60, 64, 100, 108, 112, 127, 128,
	129, 150, 200, 256, 300, 500, 512, 700, 1000, 1024, 1300, 2000, 2048, 3000, 4090, 4096, 4100,
	6000, 8180, 8192, 12000, 16384, 20000, 32768, 40000, 65536, 80000, 100000,
};
static const size_t large[] = {
	1000, 60000, 100000, 131000, 131052, 131053, 131072, 131100, 140000, 200000, 262144, 300000,
	500000, 1 << 20, (1 << 20) + 1, 2000000, 4 << 20, (4 << 20) + 4096, 6000000,
};

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* a to b and back to a, with neighbours on both sides that must not change. */
static void pair(size_t a, size_t b)
{
	unsigned char *before = malloc(a), *p = malloc(a), *after = malloc(b);
	CHECK(before && p && after);
	fill(before, a, 1);
	fill(p, a, 2);
	fill(after, b, 3);
	p = realloc(p, b);
	CHECK2(p, a, b);
	CHECK2(aligned(p, 16), a, b);
	VERIFY(p, least(a, b), 2);
	fill(p, b, 4);
	p = realloc(p, a);
	CHECK2(p, a, b);
	VERIFY(p, least(a, b), 4);
	fill(p, a, 5);
	VERIFY(before, a, 1);
	VERIFY(after, b, 3);
	free(before);
	VERIFY(p, a, 5);
	free(after);
	free(p);
}

/* Growth and shrinkage by one byte keep every byte, also the odd ones at the end. */
static void steps(void)
{
	unsigned char *p = malloc(1), *wall = NULL;
	CHECK(p);
	p[0] = 1;
	for (size_t n = 2; n <= 3000; n++) {
		p = realloc(p, n);
		CHECK(p);
		p[n - 1] = (unsigned char)(n * 31);
		if (n % 37 == 0) {
			free(wall);
			CHECK(wall = malloc(n));
			memset(wall, 0xff, n);
		}
		if (n % 64 == 0)
			for (size_t i = 2; i <= n; i++) CHECK2(p[i - 1] == (unsigned char)(i * 31), i, n);
	}
	for (size_t n = 2999; n >= 2; n--) {
		p = realloc(p, n);
		CHECK(p);
		if (n % 64 == 0)
			for (size_t i = 2; i <= n; i++) CHECK2(p[i - 1] == (unsigned char)(i * 31), i, n);
	}
	free(wall);
	free(p);
}

/* realloc to size 0 leaks nothing, whether it frees or resizes (see api_host). */
static void to_zero(void)
{
	static const size_t from[] = { 0, 1, 100, 5000, 200000 };
	size_t start = 0;
	for (int i = 0; i < 60000; i++) {
		if (i == 1000) start = resident_bytes();
		void *p = malloc(from[i % COUNT(from)]);
		CHECK(p);
		errno = 0;
		void *q = realloc(p, 0);
		CHECK(q || errno == 0);
		free(q);
	}
	CHECK2(over(resident_bytes(), start) < 2 * MB, resident_bytes(), start);
}

int main(void)
{
	for (size_t i = 0; i < COUNT(small); i++)
		for (size_t j = 0; j < COUNT(small); j++) pair(small[i], small[j]);
	for (size_t i = 0; i < COUNT(large); i++)
		for (size_t j = 0; j < COUNT(large); j++)
			if (large[i] + large[j] < 9000000) pair(large[i], large[j]);
	steps();
	to_zero();
	/* Blocks of aligned_alloc may be resized as well; only the plain alignment remains. */
	for (size_t align = 16; align <= 1 << 20; align <<= 1) {
		for (size_t n = 1; n < 400000; n = n * 3 + 5) {
			unsigned char *p = aligned_alloc(align, n);
			CHECK2(p, align, n);
			fill(p, n, 9);
			p = realloc(p, n * 2);
			CHECK2(p && aligned(p, 16), align, n);
			VERIFY(p, n, 9);
			fill(p, n * 2, 10);
			p = realloc(p, n / 2 + 1);
			CHECK(p);
			VERIFY(p, n / 2 + 1, 10);
			free(p);
		}
	}
	return 0;
}
