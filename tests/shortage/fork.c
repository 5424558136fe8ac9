/* A forked child of a threaded process frees what the threads left and allocates. */
#include "shortage.h"
#include <pthread.h>
#include <sys/wait.h>

enum { EACH = 60 };
static Block own[EACH];
static pthread_barrier_t ready, done;

static void *work(void *unused)
{
	Random r = random_from(5);
	(void)unused;
	for (size_t i = 0; i < EACH; i++) {
		size_t n = below(&r, i % 6 ? 3000 : 300000);
		errno = 0;
		keep(&own[i], malloc(n), n, i);
	}
	pthread_barrier_wait(&ready);
	pthread_barrier_wait(&done);
	return 0;
}

static void drop_own(void)
{
	for (size_t i = 0; i < EACH; i++) {
		if (own[i].p) VERIFY(own[i].p, own[i].n, own[i].seed);
		free(own[i].p);
		own[i].p = 0;
	}
}

int main(void)
{
	pthread_attr_t small;
	pthread_t thread;
	CHECK(!pthread_attr_init(&small));
	CHECK(!pthread_attr_setstacksize(&small, 128 * KB));
	CHECK(!pthread_barrier_init(&ready, 0, 2));
	CHECK(!pthread_barrier_init(&done, 0, 2));
	CHECK(!pthread_create(&thread, &small, work, 0));
	begin();
	pthread_barrier_wait(&ready);
	for (size_t i = 0; i < 30; i++) take(i * i * 50);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		drop_own();
		for (size_t i = 0; i < 60; i++) take(i * 3000);
		for (size_t i = 0; i < 40; i++) drop(i * 7);
		for (size_t i = 0; i < count; i++) VERIFY(block[i].p, block[i].n, block[i].seed);
		_exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	CHECK2(status == 0, status, 0);
	pthread_barrier_wait(&done);
	CHECK(!pthread_join(thread, 0));
	drop_own();
	end();
	return 0;
}
