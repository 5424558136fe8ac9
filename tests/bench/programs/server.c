/* A server whose threads are replaced while their objects live on: each thread replaces random
 * objects of its connection table, then hands the table to a fresh thread and ends, so that most
 * frees are of blocks that an earlier thread made.
 * server THREADS OBJECTS OPERATIONS GENERATIONS */
#include "bench.h"

struct connections {
	struct block **object;
	long objects, operations, generations;
	uint64_t seed, sum;
	pthread_t *thread; /* one for each generation */
	long born;
	APART;
};

static void serve(struct connections *c)
{
	for (long i = 0; i < c->operations; i++) {
		struct block **place = &c->object[below(&c->seed, (uint32_t)c->objects)];
		c->sum = mix(c->sum, block_free(*place));
		*place = block_new(10 + below(&c->seed, 491), draw(&c->seed));
	}
}

/* One thread after another over the same table, each created by the one that is being replaced. */
static void *generation(void *arg)
{
	struct connections *c = arg;
	serve(c);
	if (++c->born < c->generations
		&& pthread_create(&c->thread[c->born], NULL, generation, c)) fail("pthread_create");
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = (int)argument(argc, argv, 1, 2);
	long objects = argument(argc, argv, 2, 1000), operations = argument(argc, argv, 3, 10000);
	long generations = argument(argc, argv, 4, 10);
	struct connections *all = checked(calloc((size_t)threads, sizeof *all));
	for (int t = 0; t < threads; t++) {
		struct connections *c = &all[t];
		*c = (struct connections){.objects = objects, .operations = operations / generations,
			.generations = generations, .seed = (uint64_t)t + 1};
		c->object = checked(malloc(sizeof *c->object * (size_t)objects));
		for (long i = 0; i < objects; i++)
			c->object[i] = block_new(10 + below(&c->seed, 491), draw(&c->seed));
		c->thread = checked(malloc(sizeof *c->thread * (size_t)generations));
		if (pthread_create(&c->thread[0], NULL, generation, c)) fail("pthread_create");
	}
	uint64_t sum = 0;
	for (int t = 0; t < threads; t++) {
		struct connections *c = &all[t];
		for (long g = 0; g < generations; g++)
			if (pthread_join(c->thread[g], NULL)) fail("pthread_join");
		free(c->thread);
		for (long i = 0; i < objects; i++) c->sum = mix(c->sum, block_free(c->object[i]));
		sum = mix(sum, c->sum);
		free(c->object);
	}
	free(all);
	return report("server", sum, (uint64_t)(operations + objects) * (uint64_t)threads);
}
