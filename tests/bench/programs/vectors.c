/* Many vectors that grow by realloc in random order, half of them by half their size, half of
 * them by a fixed step; a few grow to megabytes; full ones are cut to size and start again.
 * vectors VECTORS OPERATIONS */
#include "bench.h"

struct vector {
	uint32_t *at, used, room;
};

static uint64_t calls;

static void resize(struct vector *v, uint32_t room)
{
	v->at = checked(realloc(v->at, sizeof *v->at * room));
	v->room = room;
	calls++;
}

static uint64_t finish(struct vector *v)
{
	uint64_t sum = v->used;
	if (v->used) resize(v, v->used);
	for (uint32_t i = 0; i < v->used; i++)
		if (v->at[i] != (i ^ v->at[0])) fail("an element");
	free(v->at);
	*v = (struct vector){NULL, 0, 0};
	return sum;
}

int main(int argc, char **argv)
{
	long vectors = argument(argc, argv, 1, 1000), operations = argument(argc, argv, 2, 100000);
	struct vector *all = checked(calloc((size_t)vectors, sizeof *all));
	uint64_t seed = 1, sum = 0;
	for (long i = 0; i < operations; i++) {
		uint32_t index = below(&seed, (uint32_t)vectors);
		struct vector *v = &all[index];
		uint32_t limit = index % 100 == 0 ? 500000 : 4000;
		for (uint32_t add = 1 + below(&seed, limit / 100); add; add--) {
			if (v->used == v->room)
				resize(v, index % 2 ? v->room + v->room / 2 + 4 : v->room + limit / 50 + 4);
			uint32_t first = v->used ? v->at[0] : index;
			v->at[v->used] = v->used ^ first;
			v->used++;
		}
		if (v->used > limit) sum = mix(sum, finish(v));
	}
	for (long i = 0; i < vectors; i++) sum = mix(sum, finish(&all[i]));
	free(all);
	return report("vectors", sum, calls);
}
