/* fork in a loop while all threads are busy in the heap. Arguments: threads, forks.
 *
 * The child verifies and frees every block that it can reach, with threads of its own that allocate
 * at the same time; one of these forks again while the others are busy. What children and
 * grandchildren keep in memory is bounded, too. */
#include "stress.h"
#include "../programs/children.h"

enum { CHILD_THREADS = 3 };
static size_t threads;
static atomic_int stop, child_runs;

static void *busy(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	/* No large blocks: what a thread has in its hands at the fork is lost to the child. */
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		free_block(swap_in(&r, make_block(me, &r, 0)), me);
		/* All are busy when the fork comes; then the child shall have a turn, too. */
		while (atomic_load_explicit(&child_runs, memory_order_relaxed)) usleep(1000);
	}
	return NULL;
}

/* After all that could be reached was freed. Beyond the bound at rest a heap that the fork left
 * behind may keep what its thread had in its hands, and free slots next to it: 512 KiB each. */
static void child_at_rest(size_t heaps)
{
	let_pages_go();
	size_t left = over(private_bytes(), start_bytes), bound = bound_at_rest(threads) + heaps * 512 * KB;
	CHECK2(left <= bound || unbounded, left, bound);
}

static void grandchild(void)
{
	use_heap(5, 200);
	drain_pool(UINT32_MAX, 0, 1);
	use_heap(6, 200);
	child_at_rest(threads + CHILD_THREADS);
	_exit(0);
}

static void *child_work(void *number)
{
	uintptr_t me = (uintptr_t)number;
	Random r = random_from(me + 1000);
	for (int i = 0; i < 300; i++) {
		Block *b = make_block((uint32_t)me, &r, 1);
		if (below(&r, 3)) free_block(b, (uint32_t)me);
		else free_block(swap_in(&r, b), (uint32_t)me);
	}
	if (me == 0) {
		pid_t pid = fork();
		if (!pid) grandchild();
		wait_for(pid, __LINE__);
	}
	drain_pool((uint32_t)me, me, CHILD_THREADS);
	return NULL;
}

static void child(size_t round)
{
	pthread_t thread[CHILD_THREADS];
	/* Alone first: every third block of threads that are not here. */
	drain_pool(UINT32_MAX, 0, 3);
	if (round % 2) {
		for (uintptr_t i = 0; i < CHILD_THREADS; i++) start_thread(&thread[i], child_work, i);
		use_heap(round, 300);
		for (size_t i = 0; i < CHILD_THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
	}
	drain_pool(UINT32_MAX, 0, 1);
	child_at_rest(threads);
	use_heap(round + 1, 300);
	if (round % 3 == 0) exit(0);
	_exit(0);
}

int main(int argc, char **argv)
{
	pthread_t thread[MOST_THREADS];
	threads = threads_argument(argc, argv);
	size_t forks = number_argument(argc, argv, 2);
	for (size_t i = 0; i < threads; i++) start_thread(&thread[i], busy, i);
	/* A full pool, so that there is something to reach. */
	while (atomic_load(&made) < 2 * POOL) usleep(1000);
	for (size_t round = 0; round < forks; round++) {
		pid_t pid = fork();
		if (!pid) child(round);
		use_heap(round, 50);
		atomic_store(&child_runs, 1);
		wait_for(pid, __LINE__);
		atomic_store(&child_runs, 0);
		usleep(2000);
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < threads; i++) CHECK(!pthread_join(thread[i], NULL));
	drain_pool(UINT32_MAX, 0, 1);
	at_rest("fork_busy", threads);
	return 0;
}
