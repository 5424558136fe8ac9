/* Blocks freed by other threads than their owners. Argument:
 * pipe: producers hand to consumers through a bounded queue;
 * all:  everyone makes blocks for everyone;
 * lifo: a stack of blocks that everyone pushes to and pops from, so owners get their own back too. */
#include "check.h"
#include <pthread.h>

enum { THREADS = 6, BLOCKS = 60000, DEPTH = 1024 };

typedef struct Block { struct Block *next; size_t n; uint64_t seed; } Block;

static Block *make(Random *r)
{
	size_t n = below(r, below(r, 100) ? 400 : 30000);
	Block *b = below(r, 8) ? malloc(sizeof *b + n) : calloc(1, sizeof *b + n);
	CHECK(b);
	b->n = n;
	b->seed = next_random(r);
	fill(b + 1, n, b->seed);
	return b;
}

static void drop(Block *b)
{
	VERIFY(b + 1, b->n, b->seed);
	memset(b, 0xee, sizeof *b);
	free(b);
}

/* ---- A bounded first-in first-out queue ---- */

typedef struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	Block *ring[DEPTH];
	size_t in, out;
} Queue;

static Queue queue[THREADS];

static void put(Queue *q, Block *b)
{
	pthread_mutex_lock(&q->lock);
	while (q->in - q->out == DEPTH) pthread_cond_wait(&q->changed, &q->lock);
	q->ring[q->in++ % DEPTH] = b;
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
}

/* NULL when the queue is empty and `wait` is 0. */
static Block *get(Queue *q, int wait)
{
	Block *b = NULL;
	pthread_mutex_lock(&q->lock);
	while (wait && q->in == q->out) pthread_cond_wait(&q->changed, &q->lock);
	if (q->in != q->out) b = q->ring[q->out++ % DEPTH];
	pthread_cond_broadcast(&q->changed);
	pthread_mutex_unlock(&q->lock);
	return b;
}

static void *producer(void *number)
{
	Random r = random_from((uintptr_t)number);
	for (int i = 0; i < BLOCKS; i++) put(&queue[0], make(&r));
	return NULL;
}

static void *consumer(void *number)
{
	(void)number;
	for (int i = 0; i < BLOCKS; i++) drop(get(&queue[0], 1));
	return NULL;
}

static void *everyone(void *number)
{
	uintptr_t me = (uintptr_t)number;
	Random r = random_from(me + 50);
	size_t received = 0;
	for (size_t i = 0; i < BLOCKS; i++) {
		uintptr_t to = (me + 1 + i % (THREADS - 1)) % THREADS;
		Block *b = make(&r), *mine;
		/* Never wait with a full queue of one's own: take from it while the other is full. */
		for (;;) {
			pthread_mutex_lock(&queue[to].lock);
			int room = queue[to].in - queue[to].out < DEPTH;
			if (room) {
				queue[to].ring[queue[to].in++ % DEPTH] = b;
				pthread_cond_broadcast(&queue[to].changed);
			}
			pthread_mutex_unlock(&queue[to].lock);
			if (room) break;
			if ((mine = get(&queue[me], 0))) {
				drop(mine);
				received++;
			}
		}
		if (i % 3 == 0 && (mine = get(&queue[me], 0))) {
			drop(mine);
			received++;
		}
	}
	for (; received < BLOCKS; received++) drop(get(&queue[me], 1));
	return NULL;
}

static Block *stack;
static size_t stacked;
static pthread_mutex_t stack_lock = PTHREAD_MUTEX_INITIALIZER;

static void *last_in_first_out(void *number)
{
	Random r = random_from((uintptr_t)number + 90);
	for (int i = 0; i < BLOCKS; i++) {
		int pop = (i / 500) % 2;
		Block *b = pop ? NULL : make(&r);
		pthread_mutex_lock(&stack_lock);
		if (pop) {
			if ((b = stack)) {
				stack = b->next;
				stacked--;
			}
		} else {
			b->next = stack;
			stack = b;
			stacked++;
		}
		pthread_mutex_unlock(&stack_lock);
		if (pop && b) drop(b);
	}
	return NULL;
}

static void run(void *(*even)(void *), void *(*odd)(void *))
{
	pthread_t thread[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&thread[i], NULL, i % 2 ? odd : even, (void *)i));
	for (int i = 0; i < THREADS; i++) CHECK(!pthread_join(thread[i], NULL));
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "pipe";
	for (int i = 0; i < THREADS; i++) {
		CHECK(!pthread_mutex_init(&queue[i].lock, NULL));
		CHECK(!pthread_cond_init(&queue[i].changed, NULL));
	}
	size_t start = resident_bytes();
	if (!strcmp(what, "pipe")) run(producer, consumer);
	else if (!strcmp(what, "all")) run(everyone, everyone);
	else run(last_in_first_out, last_in_first_out);
	while (stack) {
		Block *b = stack;
		stack = b->next;
		drop(b);
	}
	/* Live at most a few thousand blocks of 300 bytes: an owner that never takes back what
	 * others freed would keep 100 MB. */
	CHECK2(over(resident_bytes(), start) < 24 * MB, resident_bytes(), start);
	return 0;
}
