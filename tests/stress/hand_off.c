/* Threads hand blocks to each other. Arguments: threads, thousands of operations of all threads
 * together, and
 * all:  each puts what it makes into the pool and frees what lay there;
 * pipe: half of them only make, half only free. */
#include "stress.h"

static size_t threads, operations;
static int pipe_only;
static atomic_size_t producers;

static void *work(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	for (size_t i = 0; i < operations / threads; i++)
		free_block(swap_in(&r, make_block(me, &r, 1)), me);
	return NULL;
}

static void *produce(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	for (size_t i = 0; i < operations / threads; i++) {
		Block *b = make_block(me, &r, 1), *none = NULL;
		while (!atomic_compare_exchange_strong(&pool[below(&r, POOL)], &none, b)) {
			none = NULL;
			sched_yield();
		}
	}
	atomic_fetch_sub(&producers, 1);
	return NULL;
}

static void *consume(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	while (atomic_load(&producers)) free_block(swap_in(&r, NULL), me);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread[MOST_THREADS];
	threads = threads_argument(argc, argv);
	operations = number_argument(argc, argv, 2) * 1000;
	pipe_only = argc > 3 && !strcmp(argv[3], "pipe");
	CHECK(!pipe_only || threads > 1);
	atomic_store(&producers, (threads + 1) / 2);
	for (size_t i = 0; i < threads; i++)
		start_thread(&thread[i], !pipe_only ? work : i % 2 ? consume : produce, i);
	for (size_t i = 0; i < threads; i++) CHECK(!pthread_join(thread[i], NULL));
	drain_pool(UINT32_MAX, 0, 1);
	at_rest(pipe_only ? "hand_off pipe" : "hand_off all", threads);
	return 0;
}
