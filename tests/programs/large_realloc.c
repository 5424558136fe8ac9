/* A block grown from a page to 256 MB and back: contents kept, moved by the system and not by
 * copying (never two copies in memory), and memory returned when it shrinks. */
#include "check.h"

#define MOST (256 * MB)
enum { STEP = 512 };

static void stamp(unsigned char *p, size_t from, size_t to)
{
	/* From the last stamp on: it may not have fitted before. */
	for (size_t i = from / STEP * STEP; i + 8 <= to; i += STEP) {
		uint64_t v = mix(i);
		memcpy(p + i, &v, 8);
	}
}

static void verify(const unsigned char *p, size_t to)
{
	for (size_t i = 0; i + 8 <= to; i += STEP) {
		uint64_t v;
		memcpy(&v, p + i, 8);
		CHECK2(v == mix(i), i, to);
	}
}

/* Grows by numerator/denominator each time, with a wall of other blocks in between. */
static void grow(size_t numerator, size_t denominator, size_t most)
{
	/* Of each wall a page is touched, as something stands behind the block. The limits below hold
	 * with pages of 4 KiB; these are the bytes that longer ones add. */
	const size_t of_walls = 64 * (page_bytes() - 4096);
	size_t n = 4096, last_checked = n, start = resident_bytes(), walls = 0;
	unsigned char *p = malloc(n), *wall[64] = { 0 };
	CHECK(p);
	stamp(p, 0, n);
	while (n < most) {
		size_t more = n / denominator * numerator + 16;
		if (more > most) more = most;
		p = realloc(p, more);
		CHECK2(p, n, more);
		stamp(p, n, more);
		n = more;
		if (n > last_checked * 3) {
			verify(p, n);
			last_checked = n;
		}
		size_t used = over(resident_bytes(), start);
		CHECK2(used < n + n / 8 + 3 * MB + of_walls, used, n);
		free(wall[walls % 64]);
		CHECK(wall[walls++ % 64] = malloc(140000 + walls % 3 * 1000));
	}
	verify(p, n);
	while (n > 5000) {
		n = n / 5 * 2;
		CHECK(p = realloc(p, n));
		verify(p, n);
		size_t used = over(resident_bytes(), start);
		CHECK2(used < n + n / 8 + 34 * MB + of_walls, used, n);
	}
	free(p);
	for (size_t i = 0; i < COUNT(wall); i++) free(wall[i]);
}

int main(void)
{
	grow(2, 1, MOST);
	size_t peak = peak_resident_bytes();
	CHECK2(peak < MOST + 48 * MB, peak, MOST);
	grow(4, 3, 64 * MB);
	grow(17, 16, 8 * MB);
	/* One page at a time. */
	size_t n = 100000;
	unsigned char *p = malloc(n);
	CHECK(p);
	stamp(p, 0, n);
	for (int i = 0; i < 1000; i++) {
		CHECK(p = realloc(p, n + 4096));
		stamp(p, n, n + 4096);
		n += 4096;
	}
	verify(p, n);
	free(p);
	CHECK2(resident_bytes() < 64 * MB, resident_bytes(), 0);
	return 0;
}
