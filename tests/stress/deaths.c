/* Threads come and die in waves and leave live blocks; destructors of thread-specific data and
 * exit handlers free them and make more. Arguments: threads at once, waves. */
#include "stress.h"

enum { EACH = 60, KEYS = 4 };
static size_t threads;
static pthread_key_t key[KEYS];

static void destroy(void *value)
{
	Block *b = value;
	uint32_t owner = b->owner;
	Random r = random_from(b->seed);
	free_block(b, owner);
	/* Its heap is about to be abandoned: make, hand over, free what others made. */
	free_block(swap_in(&r, make_block(owner, &r, 1)), owner);
	free_block(swap_in(&r, NULL), owner);
}

static void *live_and_die(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	Block *own[EACH];
	for (size_t i = 0; i < EACH; i++) own[i] = make_block(me, &r, 1);
	for (size_t i = 0; i < KEYS; i++) CHECK(!pthread_setspecific(key[i], make_block(me, &r, 1)));
	for (size_t i = 0; i < EACH; i++) {
		/* A third dies with its thread's heap, a third is left to others. */
		if (i % 3 == 0) free_block(own[i], me);
		else free_block(swap_in(&r, own[i]), me);
	}
	if (me % 2) pthread_exit(NULL);
	return NULL;
}

static void at_exit(void)
{
	Random r = random_from(4);
	for (int i = 0; i < 200; i++) free_block(swap_in(&r, make_block(UINT32_MAX, &r, 1)), UINT32_MAX);
	drain_pool(UINT32_MAX, 0, 1);
	at_rest("deaths", threads);
}

int main(int argc, char **argv)
{
	pthread_t thread[MOST_THREADS];
	threads = threads_argument(argc, argv);
	size_t waves = number_argument(argc, argv, 2);
	for (size_t i = 0; i < KEYS; i++) CHECK(!pthread_key_create(&key[i], destroy));
	CHECK(!atexit(at_exit));
	for (size_t wave = 0; wave < waves; wave++) {
		for (size_t i = 0; i < threads; i++)
			start_thread(&thread[i], live_and_die, wave * threads + i);
		/* Blocks of this wave and earlier ones, while their threads die. */
		drain_pool(UINT32_MAX, wave % 5, 5);
		for (size_t i = 0; i < threads; i++) CHECK(!pthread_join(thread[i], NULL));
	}
	exit(0);
}
