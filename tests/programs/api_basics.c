/* What everybody relies on: zero sizes, NULL, alignment, independence of blocks. */
#include "check.h"

static void zero_sizes(void)
{
	/* malloc(0): here a unique pointer that can be freed, as musl documents. */
	void *p[200];
	for (size_t i = 0; i < COUNT(p); i++) {
		switch (i % 4) {
		case 0: p[i] = malloc(0); break;
		case 1: p[i] = calloc(0, i); break;
		case 2: p[i] = calloc(i, 0); break;
		default: p[i] = realloc(NULL, 0);
		}
		CHECK(p[i]);
		CHECK(aligned(p[i], 16));
		for (size_t j = 0; j < i; j++) CHECK2(p[i] != p[j], i, j);
	}
	for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
	void *a = aligned_alloc(64, 0), *b = aligned_alloc(64, 0);
	CHECK(a && b && a != b && aligned(a, 64));
	free(a);
	free(b);
	p[0] = calloc(0, SIZE_MAX);
	p[1] = calloc(SIZE_MAX, 0);
	CHECK(p[0] && p[1] && p[0] != p[1]);
	free(p[0]);
	free(p[1]);
}

static void null_is_free(void)
{
	for (int i = 0; i < 1000; i++) free(NULL);
	void *p = realloc(NULL, 100);
	CHECK(p);
	fill(p, 100, 5);
	VERIFY(p, 100, 5);
	free(p);
	p = reallocarray(NULL, 10, 10);
	CHECK(p);
	fill(p, 100, 5);
	free(p);
}

static void blocks_are_apart(void)
{
	enum { N = 4000 };
	static unsigned char *p[N];
	static size_t size[N];
	Random r = random_from(7);
	for (size_t i = 0; i < N; i++) {
		size[i] = below(&r, 3000);
		p[i] = malloc(size[i]);
		CHECK(p[i]);
		CHECK2(aligned(p[i], 16), p[i], size[i]);
		fill(p[i], size[i], i);
	}
	for (size_t i = 0; i < N; i++) VERIFY(p[i], size[i], i);
	for (size_t i = 0; i < N; i += 2) free(p[i]);
	for (size_t i = 1; i < N; i += 2) VERIFY(p[i], size[i], i);
	for (size_t i = 0; i < N; i += 2) {
		size[i] = below(&r, 3000);
		p[i] = malloc(size[i]);
		CHECK(p[i]);
		fill(p[i], size[i], i + N);
	}
	for (size_t i = 0; i < N; i++) VERIFY(p[i], size[i], i % 2 ? i : i + N);
	for (size_t i = N; i--;) free(p[i]);
}

static void arrays(void)
{
	char *p = reallocarray(NULL, 100, 8);
	CHECK(p);
	fill(p, 800, 1);
	p = reallocarray(p, 1000, 8);
	CHECK(p);
	VERIFY(p, 800, 1);
	p = reallocarray(p, 50, 2);
	CHECK(p);
	VERIFY(p, 100, 1);
	free(p);
}

int main(void)
{
	zero_sizes();
	null_is_free();
	blocks_are_apart();
	arrays();
	zero_sizes();
	return 0;
}
