/* Sparse tables from calloc: hash tables of 1 KiB to 4 MiB of which a few entries are used, made
 * and dropped in turn. All that was not written must be zero, whatever lay there before.
 * tables OPERATIONS */
#include "bench.h"

enum { LIVE = 32, USED = 40 };

struct table {
	uint32_t *entry, entries;
};

static struct table table_new(uint64_t *seed)
{
	uint32_t entries = (uint32_t)log_size(seed, 256, 1 << 20);
	struct table t = {checked(calloc(entries, sizeof *t.entry)), entries};
	for (int i = 0; i < USED; i++) {
		uint32_t *e = &t.entry[below(seed, entries)];
		if (*e && *e != entries) fail("an entry that is not zero");
		*e = entries;
	}
	return t;
}

static uint64_t table_free(struct table t, uint64_t *seed)
{
	uint64_t sum = 0;
	for (int i = 0; i < USED; i++) {
		uint32_t e = t.entry[below(seed, t.entries)];
		if (e && e != t.entries) fail("an entry");
		sum = mix(sum, e);
	}
	free(t.entry);
	return sum;
}

int main(int argc, char **argv)
{
	long operations = argument(argc, argv, 1, 5000);
	struct table live[LIVE] = {{NULL, 0}};
	uint64_t seed = 1, sum = 0;
	for (long i = 0; i < operations; i++) {
		struct table *place = &live[below(&seed, LIVE)];
		if (place->entry) sum = mix(sum, table_free(*place, &seed));
		*place = table_new(&seed);
	}
	for (int i = 0; i < LIVE; i++)
		if (live[i].entry) sum = mix(sum, table_free(live[i], &seed));
	return report("tables", sum, (uint64_t)operations);
}
