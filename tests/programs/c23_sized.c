/* What the libraries offer beyond musl: C23's sized free, and a readable dump. */
#include "check.h"
#include "byssal_extras.h"

static void dump(size_t least)
{
	FILE *file = tmpfile();
	CHECK(file);
	CHECK(byssal_dump_heap(file) == 0);
	CHECK(!fflush(file));
	long size = ftell(file);
	CHECK2(size >= (long)least, size, least);
	fclose(file);
}

int main(void)
{
	errno = 1234;
	free_sized(NULL, 0);
	free_sized(NULL, 100);
	free_aligned_sized(NULL, 64, 100);
	CHECK(errno == 1234);
	for (size_t n = 0; n < 400000; n += 1 + n / 30) {
		unsigned char *p = malloc(n), *q = calloc(n, 1), *r = aligned_alloc(128, n);
		unsigned char *s = realloc(malloc(10), n + 1);
		CHECK(p && q && r && s);
		fill(p, n, 1);
		fill(q, n, 2);
		fill(r, n, 3);
		fill(s, n + 1, 4);
		VERIFY(p, n, 1);
		errno = 1234;
		free_sized(p, n);
		VERIFY(q, n, 2);
		free_sized(q, n);
		VERIFY(r, n, 3);
		free_aligned_sized(r, 128, n);
		VERIFY(s, n + 1, 4);
		free_sized(s, n + 1);
		CHECK(errno == 1234);
	}
	for (size_t align = 16; align <= 1 << 20; align <<= 1) {
		void *p = aligned_alloc(align, 1000);
		CHECK(p);
		free_aligned_sized(p, align, 1000);
	}
	enum { N = 500 };
	static unsigned char *p[N];
	for (size_t i = 0; i < N; i++) {
		CHECK(p[i] = malloc(i * 10));
		fill(p[i], i * 10, i);
	}
	dump(200);
	for (size_t i = 0; i < N; i += 3) {
		free(p[i]);
		p[i] = NULL;
	}
	dump(200);
	for (size_t i = 0; i < N; i++) {
		if (p[i]) VERIFY(p[i], i * 10, i);
		free(p[i]);
	}
	dump(20);
	return 0;
}
