/* Asymmetric, random, across threads: one thread in four allocates much and frees little, the
 * others the other way round; a block goes to the mailbox of a random thread or stays in the own
 * random set. Sizes from 16 bytes to 8 KiB. A box holds a hundred letters more or less: where it is
 * full, the block stays. So what is live does not depend on which thread the system lets run.
 * mailboxes THREADS OPERATIONS */
#include "bench.h"

#include <stdatomic.h>

enum { SET = 2000, FULL = 100 };

/* A letter is a block whose bytes 8 to 15 link it to the next one. */
struct letter {
	struct block block;
	struct letter *next;
};

struct worker {
	_Atomic(struct letter *) box;
	_Atomic(long) letters; /* in the box, but for those of threads that are just sending */
	struct worker *all;
	int index, count;
	long operations;
	uint64_t seed, sum;
	APART;
};

static void send(struct worker *to, struct letter *l)
{
	atomic_fetch_add_explicit(&to->letters, 1, memory_order_relaxed);
	l->next = atomic_load_explicit(&to->box, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&to->box, &l->next, l,
		memory_order_release, memory_order_relaxed)) {}
}

static void open_mail(struct worker *w)
{
	struct letter *l = atomic_exchange_explicit(&w->box, NULL, memory_order_acquire);
	while (l) {
		struct letter *next = l->next;
		atomic_fetch_sub_explicit(&w->letters, 1, memory_order_relaxed);
		w->sum += block_free(&l->block);
		l = next;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	static const uint32_t sent_of_10[] = {8, 2};
	uint32_t sent = sent_of_10[w->index % 4 != 0];
	struct block **set = checked(calloc(SET, sizeof *set));
	for (long i = 0; i < w->operations; i++) {
		struct block *b = block_new(log_size(&w->seed, 24, 8192), draw(&w->seed));
		/* All is drawn each time: the next block must not depend on what the others do. */
		int sends = below(&w->seed, 10) < sent;
		struct worker *to = &w->all[below(&w->seed, (uint32_t)w->count)];
		struct block **place = &set[below(&w->seed, SET)];
		if (sends && atomic_load_explicit(&to->letters, memory_order_relaxed) < FULL) {
			send(to, (struct letter *)b);
		} else {
			if (*place) w->sum += block_free(*place);
			*place = b;
		}
		if (i % 64 == 0) open_mail(w);
	}
	for (int i = 0; i < SET; i++)
		if (set[i]) w->sum += block_free(set[i]);
	free(set);
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = (int)argument(argc, argv, 1, 2);
	long operations = argument(argc, argv, 2, 200000);
	struct worker *w = checked(calloc((size_t)threads, sizeof *w));
	for (int i = 0; i < threads; i++) {
		w[i].all = w;
		w[i].index = i;
		w[i].count = threads;
		w[i].operations = operations;
		w[i].seed = (uint64_t)i + 1;
	}
	in_threads(threads, work, w, sizeof *w);
	uint64_t sum = 0;
	for (int i = 0; i < threads; i++) {
		open_mail(&w[i]);
		sum += w[i].sum;
	}
	free(w);
	return report("mailboxes", mix(0, sum), (uint64_t)operations * (uint64_t)threads);
}
