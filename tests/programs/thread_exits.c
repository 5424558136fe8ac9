/* All ways for a thread to end, each leaving live blocks that others verify and free; then 2,000
 * short-lived threads, after which memory is as before. */
#include "check.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { WAYS = 5, BLOCKS = 300, AT_ONCE = 20, WAVES = 100 };
enum { RETURN, EXIT, CANCEL_DEFERRED, CANCEL_ASYNC, DETACHED };

typedef struct {
	int way;
	unsigned char *block[BLOCKS];
	atomic_int ready;
	volatile unsigned long spins;
	pthread_t thread;
} Job;

static size_t size_of(size_t i)
{
	return i % 100 == 99 ? 150000 : i * 37 % 3000;
}

static void *work(void *argument)
{
	Job *job = argument;
	void *own[BLOCKS];
	/* An asynchronous cancel must not strike inside malloc: POSIX allows only computation then. */
	CHECK(!pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL));
	for (size_t i = 0; i < BLOCKS; i++) {
		CHECK(job->block[i] = malloc(size_of(i)));
		CHECK(own[i] = malloc(size_of(i) + 5));
		fill(job->block[i], size_of(i), i);
		fill(own[i], size_of(i) + 5, ~i);
	}
	for (size_t i = 0; i < BLOCKS; i++) {
		VERIFY(own[i], size_of(i) + 5, ~i);
		free(own[i]);
	}
	int way = job->way;
	if (way == CANCEL_ASYNC) CHECK(!pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL));
	if (way == CANCEL_ASYNC || way == CANCEL_DEFERRED) {
		atomic_store(&job->ready, 1);
		CHECK(!pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL));
	}
	if (way == CANCEL_ASYNC)
		for (;;) job->spins++;
	if (way == CANCEL_DEFERRED)
		for (;;) pause();
	atomic_store(&job->ready, 1);
	if (way == EXIT) pthread_exit(job);
	return job;
}

static void collect(Job *job)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		VERIFY(job->block[i], size_of(i), i);
		free(job->block[i]);
	}
}

static void every_way(void)
{
	enum { EACH = 4 };
	static Job job[WAYS * EACH];
	memset(job, 0, sizeof job);
	for (int i = 0; i < WAYS * EACH; i++) {
		job[i].way = i % WAYS;
		CHECK(!pthread_create(&job[i].thread, NULL, work, &job[i]));
		if (job[i].way == DETACHED) CHECK(!pthread_detach(job[i].thread));
	}
	for (int i = 0; i < WAYS * EACH; i++) {
		while (!atomic_load(&job[i].ready)) sched_yield();
		int way = job[i].way;
		void *result = NULL;
		if (way == CANCEL_ASYNC || way == CANCEL_DEFERRED) CHECK(!pthread_cancel(job[i].thread));
		if (way != DETACHED) {
			CHECK(!pthread_join(job[i].thread, &result));
			void *want = way == CANCEL_ASYNC || way == CANCEL_DEFERRED ? PTHREAD_CANCELED : &job[i];
			CHECK2(result == want, way, result);
		}
		/* Half are collected at once, half when all have gone. */
		if (i % 2) collect(&job[i]);
	}
	for (int i = 0; i < WAYS * EACH; i += 2) collect(&job[i]);
}

static void *brief(void *argument)
{
	unsigned char **slot = argument;
	unsigned char *p[200];
	for (size_t i = 0; i < COUNT(p); i++) {
		CHECK(p[i] = malloc(i * 11));
		fill(p[i], i * 11, i);
	}
	for (size_t i = 1; i < COUNT(p); i++) {
		VERIFY(p[i], i * 11, i);
		free(p[i]);
	}
	free(p[0]);
	/* One block outlives its thread. */
	CHECK(*slot = malloc(500));
	fill(*slot, 500, 1);
	return NULL;
}

static void waves(void)
{
	static unsigned char *left[WAVES][AT_ONCE];
	size_t start = 0;
	pthread_attr_t attributes;
	CHECK(!pthread_attr_init(&attributes));
	CHECK(!pthread_attr_setstacksize(&attributes, 128 * KB));
	for (int wave = 0; wave < WAVES; wave++) {
		pthread_t thread[AT_ONCE];
		for (int i = 0; i < AT_ONCE; i++)
			CHECK(!pthread_create(&thread[i], &attributes, brief, &left[wave][i]));
		for (int i = 0; i < AT_ONCE; i++) CHECK(!pthread_join(thread[i], NULL));
		/* Blocks of the dead are freed five waves later. */
		if (wave >= 5) {
			for (int i = 0; i < AT_ONCE; i++) {
				VERIFY(left[wave - 5][i], 500, 1);
				free(left[wave - 5][i]);
			}
		}
		if (wave == 9) start = resident_bytes();
	}
	size_t end = resident_bytes();
	CHECK2(over(end, start) < 4 * MB, start, end);
	for (int wave = WAVES - 5; wave < WAVES; wave++)
		for (int i = 0; i < AT_ONCE; i++) free(left[wave][i]);
}

int main(void)
{
	for (int round = 0; round < 4; round++) every_way();
	waves();
	every_way();
	return 0;
}
