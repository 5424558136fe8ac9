/* Pure producers and consumers: half of the threads only allocate, the other half only free what
 * comes through a bounded queue, batch by batch.
 * producer PAIRS OPERATIONS */
#include "bench.h"

enum { BATCH = 120, QUEUE = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t not_empty = PTHREAD_COND_INITIALIZER;
static pthread_cond_t not_full = PTHREAD_COND_INITIALIZER;
static struct block **queue[QUEUE];
static int used, producers;

struct worker {
	int consumes;
	long batches;
	uint64_t seed, sum;
	APART;
};

static void push(struct block **batch)
{
	pthread_mutex_lock(&lock);
	while (used == QUEUE) pthread_cond_wait(&not_full, &lock);
	queue[used++] = batch;
	pthread_cond_signal(&not_empty);
	pthread_mutex_unlock(&lock);
}

static struct block **pop(void)
{
	struct block **batch = NULL;
	pthread_mutex_lock(&lock);
	while (!used && producers) pthread_cond_wait(&not_empty, &lock);
	if (used) batch = queue[--used];
	pthread_cond_signal(&not_full);
	pthread_mutex_unlock(&lock);
	return batch;
}

static void consume(struct worker *w)
{
	for (struct block **batch; (batch = pop());) {
		for (int i = 0; i < BATCH; i++) w->sum += block_free(batch[i]);
		free(batch);
	}
}

static void produce(struct worker *w)
{
	for (long n = 0; n < w->batches; n++) {
		struct block **batch = checked(malloc(sizeof *batch * BATCH));
		for (int i = 0; i < BATCH; i++)
			batch[i] = block_new(log_size(&w->seed, 16, 512), draw(&w->seed));
		push(batch);
	}
	pthread_mutex_lock(&lock);
	producers--;
	pthread_cond_broadcast(&not_empty);
	pthread_mutex_unlock(&lock);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	if (w->consumes) consume(w);
	else produce(w);
	return NULL;
}

int main(int argc, char **argv)
{
	int pairs = (int)argument(argc, argv, 1, 1);
	long operations = argument(argc, argv, 2, 400000);
	long batches = operations / BATCH / pairs;
	struct worker *w = checked(calloc((size_t)pairs * 2, sizeof *w));
	for (int i = 0; i < pairs * 2; i++)
		w[i] = (struct worker){i % 2, batches, (uint64_t)i + 1, 0};
	producers = pairs;
	in_threads(pairs * 2, work, w, sizeof *w);
	uint64_t sum = 0;
	for (int i = 0; i < pairs * 2; i++) sum += w[i].sum;
	free(w);
	return report("producer", mix(0, sum), (uint64_t)batches * BATCH * (uint64_t)pairs);
}
