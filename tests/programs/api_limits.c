/* Requests that no object can satisfy fail with ENOMEM and change nothing. */
#include "check.h"

static const size_t huge[] = {
	PTRDIFF_MAX, (size_t)PTRDIFF_MAX - 1, (size_t)PTRDIFF_MAX + 1, (size_t)PTRDIFF_MAX + 4096,
	SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 7, SIZE_MAX - 15, SIZE_MAX - 16, SIZE_MAX - 17,
	SIZE_MAX - 31, SIZE_MAX - 32, SIZE_MAX - 4095, SIZE_MAX - 4096, SIZE_MAX - 8191,
	SIZE_MAX - 65536, SIZE_MAX - (4 << 20), SIZE_MAX / 2 + 2, SIZE_MAX / 4 * 3,
};

#define HALF ((size_t)1 << 4 * sizeof(size_t))
#define MOST_ALIGN ((size_t)1 << (sizeof(size_t) == 8 ? 40 : 28))

#define REFUSED(call) \
	do { \
		errno = 0; \
		void *volatile refused_ = (call); \
		CHECK2(!refused_, i, refused_); \
		CHECK2(errno == ENOMEM, i, errno); \
	} while (0)

int main(void)
{
	static const size_t kept[] = { 10, 100, 5000, 70000, 300000, 3000000 };
	void *volatile null = NULL;
	void *block[COUNT(kept)];
	for (size_t k = 0; k < COUNT(kept); k++) {
		CHECK(block[k] = malloc(kept[k]));
		fill(block[k], kept[k], k);
	}
	for (size_t i = 0; i < COUNT(huge); i++) {
		volatile size_t n = huge[i];
		REFUSED(malloc(n));
		REFUSED(calloc(1, n));
		REFUSED(calloc(n, 1));
		REFUSED(realloc(null, n));
		REFUSED(reallocarray(null, n, 1));
		for (size_t align = 16; align <= MOST_ALIGN; align <<= 3) {
			REFUSED(aligned_alloc(align, n));
			REFUSED(memalign(align, n));
			void *p = &null;
			CHECK2(posix_memalign(&p, align, n) == ENOMEM, i, align);
			CHECK2(p == &null, i, align);
		}
		for (size_t k = 0; k < COUNT(kept); k++) {
			REFUSED(realloc(block[k], n));
			REFUSED(reallocarray(block[k], n, 1));
			VERIFY(block[k], kept[k], k);
		}
	}
	/* Products that overflow, among them those whose wrapped value is small or zero. */
	static const size_t product[][2] = {
		{ HALF, HALF }, { HALF + 1, HALF },
		{ SIZE_MAX, 2 }, { 2, SIZE_MAX }, { SIZE_MAX, SIZE_MAX }, { SIZE_MAX / 2 + 1, 2 },
		{ SIZE_MAX / 2 + 1, 2 }, { SIZE_MAX / 3 + 1, 3 }, { 16, SIZE_MAX / 16 + 1 },
		{ SIZE_MAX / 16 + 2, 16 }, { HALF + 1, HALF - 1 },
		{ PTRDIFF_MAX, 3 },
	};
	for (size_t i = 0; i < COUNT(product); i++) {
		volatile size_t a = product[i][0], b = product[i][1];
		REFUSED(calloc(a, b));
		REFUSED(reallocarray(null, a, b));
		for (size_t k = 0; k < COUNT(kept); k++) {
			REFUSED(reallocarray(block[k], a, b));
			VERIFY(block[k], kept[k], k);
		}
	}
	/* posix_memalign refuses alignments by its result. */
	static const size_t bad[] = { 0, 1, 2, 3, sizeof(void *) / 2, 12, 24, 48, 100, 4097, SIZE_MAX };
	for (size_t i = 0; i < COUNT(bad); i++) {
		void *p = &null;
		volatile size_t align = bad[i];
		CHECK2(posix_memalign(&p, align, 100) == EINVAL, align, 0);
		CHECK(p == &null);
	}
	/* The heap still works. */
	for (size_t k = 0; k < COUNT(kept); k++) {
		void *p = malloc(kept[k]);
		CHECK(p);
		fill(p, kept[k], 77);
		VERIFY(block[k], kept[k], k);
		free(p);
		free(block[k]);
	}
	return 0;
}
