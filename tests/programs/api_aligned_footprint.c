/* Aligned blocks waste no more than they must. mallocng takes 9.4 KB and 20.9 KB of memory for
 * each of these; ideal are 4 KB. */
#include "check.h"

static void bounded(size_t align, size_t n, size_t count, size_t each)
{
	unsigned char **p = malloc(count * sizeof *p);
	CHECK(p);
	/* What stands at multiples of a page has its last one to itself. The limits below hold with
	 * pages of 4 KiB; these are the bytes that longer ones add. */
	if (align >= page_bytes()) each += (-n & (page_bytes() - 1)) - (-n & 4095);
	memset(p, 0, count * sizeof *p);
	size_t start = resident_bytes();
	for (size_t i = 0; i < count; i++) {
		CHECK(p[i] = aligned_alloc(align, n));
		CHECK(aligned(p[i], align));
		fill(p[i], n, i);
	}
	size_t used = over(resident_bytes(), start);
	for (size_t i = 0; i < count; i++) VERIFY(p[i], n, i);
	for (size_t i = 0; i < count; i++) free(p[i]);
	let_pages_go();
	size_t left = over(resident_bytes(), start);
	free(p);
	CHECK2(used <= count * each + 256 * KB, used / count, each);
	CHECK2(left <= used / 4 + MB, left, used);
}

int main(void)
{
	bounded(64, 64, 20000, 160);
	bounded(256, 256, 8000, 640);
	bounded(4096, 64, 1000, 8192);
	bounded(4096, 4096, 1000, 8704);
	bounded(4096, 8192, 500, 12800);
	bounded(65536, 4096, 200, 8704);
	bounded(65536, 65536, 100, 74000);
	bounded((size_t)1 << 21, 4096, 60, 12800);
	return 0;
}
