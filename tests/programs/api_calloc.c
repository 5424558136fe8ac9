/* calloc gives zeros, above all in memory that was dirty before: every class, and large blocks. */
#include "check.h"

enum { DEPTH = 12 };

/* Dirty blocks of one size, free them, and see whether calloc clears what it hands out again. */
static void reuse(size_t n, int rounds)
{
	unsigned char *p[DEPTH];
	for (int round = 0; round < rounds; round++) {
		for (int i = 0; i < DEPTH; i++) {
			p[i] = i % 3 ? calloc(1, n) : calloc(n, 1);
			CHECK(p[i]);
			CHECK2(all_zero(p[i], n), n, round);
			memset(p[i], 0xa5, n);
		}
		/* Different orders, so that different slots come back. */
		for (int i = 0; i < DEPTH; i++) free(p[(i * 5 + round) % DEPTH]);
	}
}

/* malloc'ed, dirtied up to the last usable byte, freed; then calloc. */
static void after_malloc(size_t n)
{
	unsigned char *p[DEPTH];
	for (int i = 0; i < DEPTH; i++) {
		CHECK(p[i] = malloc(n));
		memset(p[i], 0xff, malloc_usable_size(p[i]));
	}
	for (int i = 0; i < DEPTH; i++) free(p[i]);
	for (int i = 0; i < DEPTH; i++) {
		CHECK(p[i] = calloc(1, n));
		CHECK2(all_zero(p[i], n), n, i);
	}
	for (int i = 0; i < DEPTH; i++) free(p[i]);
}

int main(void)
{
	for (size_t n = 1; n <= 2100; n += 1 + n / 64) reuse(n, 6);
	for (size_t n = 2000; n < 140000; n += n / 8) {
		reuse(n, 4);
		after_malloc(n);
	}
	for (size_t n = 1; n <= 3000; n += 7) after_malloc(n);
	static const size_t large[] = { 131000, 131072, 140000, 200000, 262144, 1000000, 4194304, 9000000 };
	for (size_t i = 0; i < COUNT(large); i++) {
		/* One at a time, then the next size: cached and split mappings come back. */
		for (int round = 0; round < 6; round++) {
			size_t n = large[i] + (size_t)round * 5000;
			unsigned char *p = calloc(1, n);
			CHECK(p);
			CHECK2(all_zero(p, n), n, round);
			memset(p, 0x5a, n);
			free(p);
			p = malloc(n / 2);
			CHECK(p);
			memset(p, 0x77, n / 2);
			free(p);
		}
	}
	/* Large blocks grown and shrunk by realloc leave dirty pages behind. */
	for (int round = 0; round < 10; round++) {
		unsigned char *p = malloc(300000);
		CHECK(p);
		memset(p, 1, 300000);
		CHECK(p = realloc(p, 2000000));
		memset(p, 2, 2000000);
		CHECK(p = realloc(p, 150000));
		unsigned char *q = calloc(1, 1500000);
		CHECK(q && all_zero(q, 1500000));
		memset(q, 3, 1500000);
		free(p);
		p = calloc(300, 1000);
		CHECK(p && all_zero(p, 300000));
		memset(p, 4, 300000);
		free(q);
		free(p);
	}
	return 0;
}
