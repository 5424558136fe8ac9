/* Three patterns of allocation; prints nanoseconds of CPU time per pair of malloc and free.
 * speed pair|random|exchange [operations] */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A lone pair of 64 bytes. */
static void pair(long operations)
{
	for (long i = 0; i < operations; i++) {
		char *volatile p = malloc(64);
		*p = 1;
		free(p);
	}
}

/* Random replacement in a live set of 100,000 objects of 16 to 1024 bytes. */
#define LIVE 100000
static char *live[LIVE];

static void fill(void)
{
	uint64_t seed = 1;
	for (long i = 0; i < LIVE; i++) *(live[i] = malloc(16 + next(&seed) % 1009)) = 1;
}

static void replace(long operations)
{
	uint64_t seed = 2;
	for (long i = 0; i < operations; i++) {
		char **place = &live[next(&seed) % LIVE];
		free(*place);
		*(*place = malloc(16 + next(&seed) % 1009)) = 1;
	}
}

/* Two threads put objects into a shared table and free what the other put there. */
#define SHELF 4096
static _Atomic(char *) shelf[SHELF];
static long each;

static void *exchange_one(void *seed_arg)
{
	uint64_t seed = (uintptr_t)seed_arg;
	for (long i = 0; i < each; i++) {
		char *p = malloc(16 + next(&seed) % 256);
		*p = 1;
		free(atomic_exchange(&shelf[next(&seed) % SHELF], p));
	}
	return 0;
}

static void exchange(long operations)
{
	pthread_t threads[2];
	each = operations / 2;
	for (uintptr_t t = 0; t < 2; t++)
		if (pthread_create(&threads[t], 0, exchange_one, (void *)(t + 1))) abort();
	for (int t = 0; t < 2; t++) pthread_join(threads[t], 0);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long operations = argc > 2 ? atol(argv[2]) : 1000000;
	void (*run)(long) = !strcmp(what, "pair") ? pair
	                    : !strcmp(what, "random") ? replace
	                    : !strcmp(what, "exchange") ? exchange : 0;
	if (!run || operations < 2) {
		fprintf(stderr, "usage: speed pair|random|exchange [operations]\n");
		return 2;
	}
	if (run == replace) fill();
	double start = cpu_seconds();
	run(operations);
	printf("%.2f\n", (cpu_seconds() - start) * 1e9 / operations);
}
