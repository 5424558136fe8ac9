/* Where libcs differ, the malloc family does as the libc that it is in or beside. Prints a line for
 * each call, which the host test malloc_rules compares with glibc's own. */
#include "check.h"
#include <stdio.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

void *reallocarray(void *, size_t, size_t);

/* How a call ends: with a block, or with NULL and errno. */
enum { BLOCK = -1, NOTHING = 0 };

/* Whether the libc is glibc, and its aligned_alloc takes any alignment. */
static int glibc, rounds;

/* The result of a call against the two libcs' answers, in any order that the caller likes. */
static void expect(const char *call, void *p, size_t align, int on_glibc, int on_musl)
{
	int error = errno, want = glibc ? on_glibc : on_musl;
	printf("%-40s %s errno %d\n", call, p ? "block" : "NULL", error);
	fflush(stdout);
	errno = error;
	if (want == BLOCK) {
		CHECK2(p && aligned(p, align), call, p);
		fill(p, malloc_usable_size(p), 1);
	} else {
		CHECK2(!p && error == want, p, want);
	}
	free(p);
}

#define EXPECT(call, align, on_glibc, on_musl) \
	do { \
		errno = 0; \
		void *p_ = (call); \
		expect(#call, p_, align, on_glibc, on_musl); \
	} while (0)

/* realloc to size 0 frees on glibc. A block that it kept would be lost. */
static void realloc_to_zero(void)
{
	static const size_t from[] = { 0, 1, 100, 5000, 20000, 300000 };
	for (size_t i = 0; i < COUNT(from); i++) {
		EXPECT(realloc(malloc(from[i]), 0), 16, NOTHING, BLOCK);
		EXPECT(reallocarray(malloc(from[i]), 0, 0), 16, NOTHING, BLOCK);
		EXPECT(reallocarray(malloc(from[i]), 0, 7), 16, NOTHING, BLOCK);
		EXPECT(reallocarray(malloc(from[i]), 7, 0), 16, NOTHING, BLOCK);
	}
	EXPECT(realloc(aligned_alloc(4096, 4096), 0), 16, NOTHING, BLOCK);
	EXPECT(realloc(NULL, 0), 16, BLOCK, BLOCK);
	EXPECT(reallocarray(NULL, 0, 7), 16, BLOCK, BLOCK);
	size_t start = 0;
	for (int i = 0; i < 100000; i++) {
		if (i == 1000) start = resident_bytes();
		void *p = realloc(malloc(100), 0);
		if (!glibc) free(p);
	}
	CHECK2(over(resident_bytes(), start) < MB / 2, resident_bytes(), start);
}

/* Alignments that are no power of two. */
static void odd_alignments(void)
{
	static const struct { size_t align, to; } odd[] = {
		{ 3, 4 }, { 5, 8 }, { 24, 32 }, { 48, 64 }, { 100, 128 }, { 1000, 1024 },
		{ 4097, 8192 }, { 3 << 20, 4 << 20 },
	};
	volatile size_t most = SIZE_MAX / 2 + 1, big = (size_t)PTRDIFF_MAX + 1;
	for (size_t i = 0; i < COUNT(odd); i++) {
		for (size_t n = 0; n < 100000; n = n * 7 + 1) {
			volatile size_t align = odd[i].align;
			EXPECT(memalign(align, n), odd[i].to, BLOCK, EINVAL);
			EXPECT(aligned_alloc(align, n), odd[i].to, rounds ? BLOCK : EINVAL, EINVAL);
		}
	}
	EXPECT(memalign(0, 10), 1, BLOCK, BLOCK);
	EXPECT(aligned_alloc(0, 10), 1, rounds ? BLOCK : EINVAL, BLOCK);
	EXPECT(memalign(most, 10), 1, ENOMEM, ENOMEM);
	EXPECT(memalign(most + 1, 10), 1, EINVAL, EINVAL);
	EXPECT(memalign(SIZE_MAX, 10), 1, EINVAL, EINVAL);
	EXPECT(memalign(3, big), 1, ENOMEM, EINVAL);
	EXPECT(aligned_alloc(most, 10), 1, ENOMEM, ENOMEM);
	EXPECT(aligned_alloc(most + 1, 10), 1, EINVAL, EINVAL);
	EXPECT(aligned_alloc(3, big), 1, rounds ? ENOMEM : EINVAL, EINVAL);
}

/* posix_memalign takes powers of two that are multiples of a pointer everywhere. */
static void posix(void)
{
	static const size_t bad[] = { 0, 1, 2, 3, sizeof(void *) / 2, 12, 24, 100, SIZE_MAX };
	void *p = NULL;
	for (size_t i = 0; i < COUNT(bad); i++) {
		volatile size_t align = bad[i], big = (size_t)PTRDIFF_MAX + 1;
		CHECK2(posix_memalign(&p, align, 10) == EINVAL && !p, align, p);
		CHECK2(posix_memalign(&p, align, big) == EINVAL && !p, align, p);
	}
}

int main(void)
{
#ifdef __GLIBC__
	glibc = 1;
	rounds = atoi(gnu_get_libc_version() + 2) < 38;
#endif
	realloc_to_zero();
	odd_alignments();
	posix();
	EXPECT(valloc(0), 4096, BLOCK, BLOCK);
	CHECK(malloc_usable_size(NULL) == 0);
	return 0;
}
