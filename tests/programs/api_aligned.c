/* aligned_alloc, memalign, posix_memalign: what they refuse, what they give, and that it can be
 * freed and resized in any order next to ordinary blocks. */
#include "check.h"

static void refused(void)
{
	/* What only some libcs refuse is in api_host. */
	static const size_t bad[] = { SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2 + 17 };
	for (size_t i = 0; i < COUNT(bad); i++) {
		for (size_t n = 0; n < 100000; n = n * 7 + 1) {
			volatile size_t align = bad[i];
			errno = 0;
			void *volatile p = aligned_alloc(align, n);
			CHECK2(!p, align, n);
			CHECK2(errno == EINVAL, align, errno);
		}
	}
}

static void small_alignments(void)
{
	for (size_t align = 1; align <= 16; align <<= 1) {
		void *p = aligned_alloc(align, 40);
		CHECK2(p && aligned(p, align), align, p);
		fill(p, 40, 1);
		free(p);
	}
	void *p = NULL;
	CHECK(!posix_memalign(&p, sizeof(void *), 24));
	fill(p, 24, 1);
	free(p);
}

typedef struct {
	unsigned char *p;
	size_t n, align;
} Block;

static unsigned char *get(size_t align, size_t n, int how)
{
	void *p = NULL;
	switch (how % 3) {
	case 0: return aligned_alloc(align, n);
	case 1: return memalign(align, n);
	default: return posix_memalign(&p, align, n) ? NULL : p;
	}
}

static void mixed(void)
{
	enum { LIVE = 600 };
	static Block live[LIVE];
	Random r = random_from(3);
	for (int i = 0; i < 60000; i++) {
		size_t slot = below(&r, LIVE);
		Block *b = &live[slot];
		if (b->p) {
			VERIFY(b->p, b->n, slot);
			CHECK(aligned(b->p, b->align));
			if (below(&r, 8) == 0) {
				size_t n = below(&r, 10000);
				unsigned char *p = realloc(b->p, n + 1);
				CHECK(p);
				VERIFY(p, (n + 1 < b->n ? n + 1 : b->n), slot);
				b->p = p;
			}
			free(b->p);
		}
		b->align = (size_t)16 << below(&r, 9 + 6 * (below(&r, 20) == 0));
		b->n = below(&r, below(&r, 20) ? 600 : 70000);
		if (below(&r, 3) == 0) {
			b->align = 16;
			b->p = malloc(b->n);
		} else {
			b->p = get(b->align, b->n, i);
		}
		CHECK2(b->p, b->align, b->n);
		CHECK2(aligned(b->p, b->align), b->p, b->align);
		fill(b->p, b->n, slot);
	}
	for (size_t slot = 0; slot < LIVE; slot++) {
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, slot);
		free(live[slot].p);
	}
}

/* Alignments at and around one page, with sizes at and around the alignment, usable bytes written. */
static void pages(void)
{
	for (size_t align = 16; align <= (size_t)4 << 20; align <<= 1) {
		for (size_t step = 0; step < 7; step++) {
			size_t n = step < 3 ? align + step - 1 : step < 6 ? align * 2 + step - 4 : 1;
			unsigned char *p[4];
			for (int i = 0; i < 4; i++) {
				p[i] = get(align, n, i);
				CHECK2(p[i], align, n);
				CHECK2(aligned(p[i], align), p[i], align);
				size_t u = malloc_usable_size(p[i]);
				CHECK2(u >= n, u, n);
				fill(p[i], u < 100000 ? u : n < 100000 ? n : 100000, (uint64_t)i);
				p[i][n - 1] = 0x11;
			}
			for (int i = 0; i < 4; i++) {
				size_t head = n - 1 < 100000 ? n - 1 : 100000;
				VERIFY(p[i], head, (uint64_t)i);
				CHECK(p[i][n - 1] == 0x11);
			}
			for (int i = 0; i < 4; i++) free(p[(i * 3 + 1) % 4]);
		}
	}
}

int main(void)
{
	refused();
	small_alignments();
	mixed();
	pages();
	refused();
	return 0;
}
