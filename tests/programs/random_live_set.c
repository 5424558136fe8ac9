/* One thread, 300,000 reproducible operations on a live set, every block verified whenever it is
 * touched, and the footprint in proportion to what is live. Argument: seed. */
#include "check.h"
#include <stdio.h>

enum { LIVE = 3000, OPERATIONS = 300000 };
static struct { unsigned char *p; size_t n; uint64_t seed; } live[LIVE];
static size_t live_bytes, peak_bytes;

/* What the hardened preset holds beyond the other when all is freed: a quarantine of 128 slots
 * (src/heap/base/config.rs), chosen at random among the freed ones. Three times the mean of
 * random_size without mappings (4 KB), which such a sum exceeds by more than eight deviations
 * (10 KB a slot). */
static const size_t QUARANTINED = 128 * 3 * 4 * KB;

int main(int argc, char **argv)
{
	Random r = random_from(argc > 1 ? strtoull(argv[1], NULL, 10) : 1);
	size_t start = resident_bytes();
	for (uint64_t i = 0; i < OPERATIONS; i++) {
		size_t slot = below(&r, LIVE), kind = below(&r, 16), n = random_size(&r);
		unsigned char *p = live[slot].p;
		if (p) {
			VERIFY(p, live[slot].n, live[slot].seed);
			live_bytes -= live[slot].n;
		}
		/* Phases: growing, steady, shrinking. */
		size_t phase = i * 3 / OPERATIONS;
		int drop = below(&r, 8) < (phase == 0 ? 1u : phase == 1 ? 4u : 7u);
		if (p && kind < 3) {
			unsigned char *q = realloc(p, n + 1);
			CHECK(q);
			VERIFY(q, n + 1 < live[slot].n ? n + 1 : live[slot].n, live[slot].seed);
			live[slot].p = q;
			live[slot].n = n + 1;
			live[slot].seed = i;
			fill(q, n + 1, i);
			live_bytes += n + 1;
		} else {
			free(p);
			live[slot].p = NULL;
			if (!(p && drop)) {
				size_t align = 16;
				switch (kind) {
				case 4: case 5: case 6:
					p = calloc(1, n);
					CHECK(p && all_zero(p, n));
					break;
				case 7:
					align = (size_t)16 << below(&r, 11);
					p = aligned_alloc(align, n);
					break;
				default:
					p = malloc(n);
				}
				CHECK2(p, n, kind);
				CHECK2(aligned(p, align), p, align);
				fill(p, n, i);
				live[slot].p = p;
				live[slot].n = n;
				live[slot].seed = i;
				live_bytes += n;
			}
		}
		if (live_bytes > peak_bytes) peak_bytes = live_bytes;
		if (i % 50000 == 49999) {
			size_t now = over(resident_bytes(), start);
			/* Not tight: it catches an allocator that forgets, not one that fragments. */
			CHECK2(now < 2 * peak_bytes + 8 * MB, now, peak_bytes);
		}
	}
	for (size_t slot = 0; slot < LIVE; slot++) {
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, live[slot].seed);
		free(live[slot].p);
	}
	int hardened = is_hardened();
	/* Each slot in quarantine keeps its group, up to 128 KiB, whose other pages wait for a purge. */
	if (hardened) let_pages_go();
	size_t left = over(resident_bytes(), start), waiting = hardened ? QUARANTINED : 0;
	/* valgrind keeps what it knows of the addresses of mappings that are gone. */
	if (getenv("UNDER_VALGRIND"))
		printf("skipped: what is resident at the end is valgrind's\n");
	else
		CHECK2(left < peak_bytes / 4 + 4 * MB + waiting, left, peak_bytes);
	return 0;
}
