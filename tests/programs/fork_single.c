/* fork without threads: parent and child have the same heap and go their own ways; grandchildren;
 * a child that becomes threaded. */
#include "children.h"
#include <pthread.h>

enum { LIVE = 500 };
static struct { unsigned char *p; size_t n; } live[LIVE];

static void *thread_work(void *seed)
{
	use_heap((uintptr_t)seed, 2000);
	return NULL;
}

static void child(int round, int depth)
{
	for (size_t i = 0; i < LIVE; i++) VERIFY(live[i].p, live[i].n, i);
	for (size_t i = (size_t)round % 3; i < LIVE; i += 3) {
		free(live[i].p);
		live[i].n = live[i].n / 2 + 7;
		CHECK(live[i].p = malloc(live[i].n));
		fill(live[i].p, live[i].n, i);
	}
	use_heap((uint64_t)round, 2000);
	if (depth) {
		pid_t pid = fork();
		if (!pid) child(round + 1, depth - 1);
		wait_for(pid, __LINE__);
	} else if (round % 2) {
		pthread_t thread[3];
		for (uintptr_t i = 0; i < COUNT(thread); i++)
			CHECK(!pthread_create(&thread[i], NULL, thread_work, (void *)i));
		use_heap(99, 2000);
		for (size_t i = 0; i < COUNT(thread); i++) CHECK(!pthread_join(thread[i], NULL));
	}
	for (size_t i = 0; i < LIVE; i++) VERIFY(live[i].p, live[i].n, i);
	for (size_t i = 0; i < LIVE; i++) free(live[i].p);
	if (round % 2) exit(0);
	_exit(0);
}

int main(void)
{
	Random r = random_from(1);
	for (size_t i = 0; i < LIVE; i++) {
		live[i].n = random_size(&r);
		CHECK(live[i].p = malloc(live[i].n));
		fill(live[i].p, live[i].n, i);
	}
	for (int round = 0; round < 24; round++) {
		pid_t pid = fork();
		if (!pid) child(round, round % 3);
		use_heap((uint64_t)round + 50, 500);
		wait_for(pid, __LINE__);
		for (size_t i = 0; i < LIVE; i++) VERIFY(live[i].p, live[i].n, i);
	}
	for (size_t i = 0; i < LIVE; i++) free(live[i].p);
	return 0;
}
