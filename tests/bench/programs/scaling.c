/* The same work shared by any number of threads.
 * scaling PATTERN OPERATIONS THREADS
 * PATTERN: local (short-lived blocks of the own thread, last in first out), random (replacement in
 * the own set), handoff (each block is freed by the next thread in a circle). OPERATIONS is the
 * sum over all threads; the checksum does not depend on the interleaving. */
#include "bench.h"

enum { PARTS = 256, BATCH = 64, SET = 1000 };

/* A basket holds one batch on its way to the next thread. */
struct worker {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct block **basket;
	struct worker *next;
	long parts, operations;
	uint64_t seed, sum;
	APART;
};

static const char *pattern;

static size_t some_size(uint64_t *seed)
{
	return log_size(seed, 16, 512);
}

static void local(struct worker *w)
{
	struct block *stack[16];
	for (long i = 0; i < w->operations;) {
		int depth = 1 + (int)below(&w->seed, 16);
		for (int k = 0; k < depth; k++) stack[k] = block_new(some_size(&w->seed), draw(&w->seed));
		for (int k = depth; k--; i++) w->sum += block_free(stack[k]);
	}
}

static void replace(struct worker *w)
{
	struct block **set = checked(calloc(SET, sizeof *set));
	for (long i = 0; i < w->operations; i++) {
		struct block **place = &set[below(&w->seed, SET)];
		if (*place) w->sum += block_free(*place);
		*place = block_new(some_size(&w->seed), draw(&w->seed));
	}
	for (long i = 0; i < SET; i++)
		if (set[i]) w->sum += block_free(set[i]);
	free(set);
}

/* Puts a batch into the basket of w once it is empty, or takes it once it is full. */
static struct block **swap(struct worker *w, struct block **batch)
{
	pthread_mutex_lock(&w->lock);
	while (!w->basket == !batch) pthread_cond_wait(&w->changed, &w->lock);
	struct block **got = w->basket;
	w->basket = batch;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
	return got;
}

static void hand_off(struct worker *w)
{
	for (long i = 0; i < w->operations; i += BATCH) {
		struct block **batch = checked(malloc(sizeof *batch * BATCH));
		for (int k = 0; k < BATCH; k++)
			batch[k] = block_new(some_size(&w->seed), draw(&w->seed));
		swap(w->next, batch);
		batch = swap(w, NULL);
		for (int k = 0; k < BATCH; k++) w->sum += block_free(batch[k]);
		free(batch);
	}
}

/* The work comes in PARTS seeded ones, of which each thread does its share. */
static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t first = w->seed;
	for (long part = 0; part < w->parts; part++) {
		w->seed = first + (uint64_t)part;
		if (pattern[0] == 'l') local(w);
		else if (pattern[0] == 'r') replace(w);
		else hand_off(w);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pattern = argc > 1 ? argv[1] : "local";
	long operations = argument(argc, argv, 2, 1000000);
	int threads = (int)argument(argc, argv, 3, 2);
	if (threads < 1 || PARTS % threads) fail("THREADS must divide 256");
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	for (int i = 0; i < threads; i++) {
		w[i].parts = PARTS / threads;
		w[i].operations = operations / PARTS;
		w[i].seed = (uint64_t)(i * w[i].parts) + 1;
		w[i].next = &w[(i + 1) % threads];
		pthread_mutex_init(&w[i].lock, NULL);
		pthread_cond_init(&w[i].changed, NULL);
	}
	in_threads(threads, work, w, sizeof *w);
	uint64_t sum = 0;
	for (int i = 0; i < threads; i++) sum += w[i].sum;
	free(w);
	return report("scaling", mix(0, sum), (uint64_t)operations);
}
