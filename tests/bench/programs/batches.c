/* Batches of blocks of one size after another, freed in an order of their own.
 * batches ORDER OPERATIONS [THREADS]
 * ORDER: ends (sh6: small sizes; the batch is freed from alternating ends, a third of it only once
 * the next batch is there), drift (sh8: sizes to 1 KiB in batches that drift; random ones of
 * older batches die), fixed (batches of 25, 100, 400 and 1600 of one size, freed in order, then in
 * reverse). */
#include "bench.h"

enum { MOST = 1600, OLD = 8 };

static const char *order;

struct worker {
	long operations, done;
	uint64_t seed, sum;
	APART;
};

static void take(struct worker *w, struct block **b)
{
	w->sum = mix(w->sum, block_free(*b));
	*b = NULL;
	w->done++;
}

/* Small sizes, 8 to 80 bytes; what was kept back of a batch goes after the next one came. */
static void ends(struct worker *w)
{
	struct block *batch[2][600] = {{NULL}};
	for (int now = 0; w->done < w->operations; now ^= 1) {
		size_t size = 8 + below(&w->seed, 73);
		for (int i = 0; i < 600; i++)
			batch[now][i] = block_new(size + (size_t)(i % 3) * 8, draw(&w->seed));
		for (int i = 0; i < 600; i++)
			if (batch[now ^ 1][i]) take(w, &batch[now ^ 1][i]);
		for (int i = 0; i < 200; i++) {
			take(w, &batch[now][i]);
			take(w, &batch[now][599 - i]);
		}
	}
	for (int i = 0; i < 1200; i++)
		if (batch[i / 600][i % 600]) take(w, &batch[i / 600][i % 600]);
}

static void drift(struct worker *w)
{
	struct block *batch[OLD][400] = {{NULL}};
	for (long n = 0; w->done < w->operations; n++) {
		struct block **b = batch[n % OLD];
		size_t size = 8 + (size_t)(n * 37 % 1000);
		for (int i = 0; i < 400; i++) {
			if (b[i]) take(w, &b[i]);
			b[i] = block_new(size + below(&w->seed, 24), draw(&w->seed));
		}
		for (int i = 0; i < 300; i++) {
			struct block **some = &batch[below(&w->seed, OLD)][below(&w->seed, 400)];
			if (*some) take(w, some);
		}
	}
	for (int i = 0; i < OLD * 400; i++)
		if (batch[i / 400][i % 400]) take(w, &batch[i / 400][i % 400]);
}

static void fixed(struct worker *w)
{
	static const int counts[] = {25, 100, 400, MOST};
	struct block *batch[MOST];
	for (long n = 0; w->done < w->operations; n++) {
		int count = counts[n / 2 % 4];
		size_t size = (size_t)16 << n / 8 % 7;
		for (int i = 0; i < count; i++) batch[i] = block_new(size, draw(&w->seed));
		for (int i = 0; i < count; i++) take(w, &batch[n % 2 ? count - 1 - i : i]);
	}
}

static void *work(void *arg)
{
	if (order[0] == 'e') ends(arg);
	else if (order[0] == 'd') drift(arg);
	else fixed(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	order = argc > 1 ? argv[1] : "ends";
	long operations = argument(argc, argv, 2, 1000000);
	int threads = (int)argument(argc, argv, 3, 1);
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	for (int i = 0; i < threads; i++)
		w[i] = (struct worker){operations / threads, 0, (uint64_t)i + 1, 0};
	if (threads == 1) work(w);
	else in_threads(threads, work, w, sizeof *w);
	uint64_t sum = 0, done = 0;
	for (int i = 0; i < threads; i++) {
		sum = mix(sum, w[i].sum);
		done += (uint64_t)w[i].done;
	}
	free(w);
	return report("batches", sum, done);
}
