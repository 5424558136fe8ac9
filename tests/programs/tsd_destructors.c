/* Destructors of thread-specific data allocate and free, put new values into their keys so that
 * they run again, and free blocks of other threads. */
#include "check.h"
#include <pthread.h>
#include <stdatomic.h>

enum { KEYS = 8, THREADS = 60 };
typedef struct { size_t n; int turn; pthread_key_t key; } Value;

static pthread_key_t key[KEYS];
static _Atomic(unsigned char *) foreign[THREADS * KEYS];
static atomic_int runs, foreign_freed;

static Value *make(pthread_key_t k, int turn, size_t n)
{
	Value *v = malloc(sizeof *v + n);
	CHECK(v);
	v->n = n;
	v->turn = turn;
	v->key = k;
	fill(v + 1, n, (uint64_t)turn);
	return v;
}

static void destroy(void *value)
{
	Value *v = value;
	VERIFY(v + 1, v->n, (uint64_t)v->turn);
	/* Something larger and something large, used and freed here. */
	unsigned char *p = malloc(v->n * 3 + 1), *q = calloc(1, 150000 + v->n);
	CHECK(p && q && all_zero(q, 150000));
	fill(p, v->n * 3 + 1, 5);
	q[0] = 1;
	/* POSIX guarantees four rounds (PTHREAD_DESTRUCTOR_ITERATIONS): use three of them. */
	if (v->turn < 2) CHECK(!pthread_setspecific(v->key, make(v->key, v->turn + 1, v->n + 40)));
	unsigned char *other = NULL;
	for (size_t i = 0; i < COUNT(foreign) && !other; i++)
		other = atomic_exchange(&foreign[(i * 31 + v->n) % COUNT(foreign)], NULL);
	if (other) {
		VERIFY(other, 600, 77);
		free(other);
		atomic_fetch_add(&foreign_freed, 1);
	}
	VERIFY(p, v->n * 3 + 1, 5);
	free(q);
	free(v);
	free(p);
	atomic_fetch_add(&runs, 1);
}

static void *work(void *number)
{
	uintptr_t me = (uintptr_t)number;
	for (size_t k = 0; k < KEYS; k++) {
		CHECK(!pthread_setspecific(key[k], make(key[k], 0, me * 13 + k * 100)));
		unsigned char *p = malloc(600);
		CHECK(p);
		fill(p, 600, 77);
		p = atomic_exchange(&foreign[me * KEYS + k], p);
		free(p);
	}
	if (me % 3 == 0) pthread_exit(NULL);
	return NULL;
}

int main(void)
{
	pthread_t thread[THREADS];
	for (size_t k = 0; k < KEYS; k++) CHECK(!pthread_key_create(&key[k], destroy));
	for (int round = 1; round <= 5; round++) {
		for (uintptr_t i = 0; i < THREADS; i++)
			CHECK(!pthread_create(&thread[i], NULL, work, (void *)i));
		for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
		CHECK2(atomic_load(&runs) == round * THREADS * KEYS * 3, atomic_load(&runs), round);
	}
	CHECK(atomic_load(&foreign_freed) > 0);
	for (size_t i = 0; i < COUNT(foreign); i++) free(atomic_load(&foreign[i]));
	return 0;
}
