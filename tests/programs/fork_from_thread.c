/* Threads that are not the main one fork, several at the same time, while others die and start;
 * in the child the forking thread is the only one, whatever it was before. */
#include "children.h"
#include <pthread.h>

enum { FORKERS = 3, FORKS = 25 };

static void *brief(void *seed)
{
	use_heap((uintptr_t)seed, 60);
	return malloc(500);
}

static void churn(int round)
{
	pthread_t thread[3];
	for (uintptr_t i = 0; i < COUNT(thread); i++)
		CHECK(!pthread_create(&thread[i], NULL, brief, (void *)(i + (uintptr_t)round)));
	for (size_t i = 0; i < COUNT(thread); i++) {
		void *left;
		CHECK(!pthread_join(thread[i], &left));
		CHECK(left);
		free(left);
	}
}

static void *forker(void *number)
{
	uintptr_t me = (uintptr_t)number;
	for (int round = 0; round < FORKS; round++) {
		unsigned char *p = malloc(3000), *q = malloc(300000);
		CHECK(p && q);
		fill(p, 3000, me);
		fill(q, 300000, me);
		churn(round);
		pid_t pid = fork();
		if (!pid) {
			VERIFY(p, 3000, me);
			VERIFY(q, 300000, me);
			free(p);
			free(q);
			use_heap(me, 300);
			churn(round + 1);
			if (round % 3 == 0) {
				/* The only thread left ends: exit handlers run, status 0. */
				pthread_exit(NULL);
			}
			_exit(0);
		}
		use_heap(me + 1, 100);
		wait_for(pid, __LINE__);
		VERIFY(p, 3000, me);
		VERIFY(q, 300000, me);
		free(q);
		free(p);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread[FORKERS];
	for (uintptr_t i = 0; i < FORKERS; i++)
		CHECK(!pthread_create(&thread[i], NULL, forker, (void *)i));
	for (int i = 0; i < 20; i++) churn(i);
	for (int i = 0; i < FORKERS; i++) CHECK(!pthread_join(thread[i], NULL));
	return 0;
}
