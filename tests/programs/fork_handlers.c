/* A library takes its own lock over a fork, and threads allocate while they hold that lock: whoever
 * forks must not wait for it with a lock in its hands that malloc needs. */
#include "children.h"
#include <pthread.h>
#include <stdatomic.h>

void library_work(size_t n);

enum { THREADS = 3, FORKS = 150 };
static atomic_int stop;

static void *busy(void *number)
{
	Random r = random_from((uintptr_t)number);
	/* Large blocks need the allocator's lock each time. */
	while (!atomic_load(&stop)) library_work(below(&r, 2) ? 300000 : below(&r, 5000));
	return NULL;
}

int main(void)
{
	pthread_t thread[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&thread[i], NULL, busy, (void *)i));
	for (int round = 0; round < FORKS; round++) {
		pid_t pid = fork();
		if (!pid) {
			library_work(200000);
			use_heap(1, 20);
			_exit(0);
		}
		wait_for(pid, __LINE__);
	}
	atomic_store(&stop, 1);
	for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
	return 0;
}
