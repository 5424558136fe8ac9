/* malloc_usable_size: at least what was asked for; every such byte may be used and survives. */
#include "check.h"

int main(void)
{
	CHECK(malloc_usable_size(NULL) == 0);
	enum { LIVE = 64 };
	unsigned char *live[LIVE] = { 0 };
	size_t usable[LIVE] = { 0 }, turn = 0;
	for (size_t n = 0; n < 300000; n += 1 + n / 40) {
		for (int kind = 0; kind < 4; kind++) {
			size_t slot = turn++ % LIVE;
			if (live[slot]) {
				CHECK2(malloc_usable_size(live[slot]) == usable[slot], usable[slot], 0);
				VERIFY(live[slot], usable[slot], slot);
				free(live[slot]);
			}
			unsigned char *p = kind == 0 ? malloc(n) : kind == 1 ? calloc(n, 1)
				: kind == 2 ? aligned_alloc(256, n) : realloc(malloc(n / 2 + 3), n);
			if (!p) p = malloc(n); /* realloc(p, 0) may give NULL in the libraries */
			CHECK(p);
			size_t u = malloc_usable_size(p);
			CHECK2(u >= n, u, n);
			/* Waste is bounded: a class step, or the rest of the pages of a large block. */
			CHECK2(u <= n + n / 2 + 16384, u, n);
			fill(p, u, slot);
			live[slot] = p;
			usable[slot] = u;
		}
	}
	for (size_t slot = 0; slot < LIVE; slot++) {
		VERIFY(live[slot], usable[slot], slot);
		/* All usable bytes are content for realloc as well. */
		unsigned char *p = realloc(live[slot], usable[slot] * 2 + 1);
		CHECK(p);
		VERIFY(p, usable[slot], slot);
		size_t u = malloc_usable_size(p);
		CHECK2(u >= usable[slot] * 2 + 1, u, usable[slot]);
		free(p);
	}
	return 0;
}
