/* What POSIX.1-2024 and C23 say that the other api_ programs leave out; each function is a row of
 * docs/conformance.md. */
#include "children.h"
#include <pthread.h>

/* Zero sizes of the functions that api_basics does not try: unique pointers, or NULL. */
static void zero_sizes_aligned(void)
{
	void *p[3] = { 0 };
	CHECK(posix_memalign(&p[0], 64, 0) == 0 && p[0] && aligned(p[0], 64));
	p[1] = memalign(64, 0);
	p[2] = reallocarray(NULL, 0, 8);
	CHECK(p[1] && p[2] && p[0] != p[1] && aligned(p[1], 64));
	for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
}

/* A size that is no multiple of the alignment is allowed since C17 (DR 460). */
static void odd_sizes_aligned(void)
{
	for (size_t n = 1; n < 200; n += 7) {
		unsigned char *p = aligned_alloc(128, n);
		CHECK(p && aligned(p, 128));
		fill(p, n, n);
		VERIFY(p, n, n);
		free(p);
	}
}

/* To the same size, and a few bytes less, a block stays where it is; a small block next to live
 * ones that grows much moves, and a large one grows with its contents, moved or not. */
static void in_place_and_moving(void)
{
	static const size_t sizes[] = { 24, 100, 1000, 5000, 50000, 200000, 3000000 };
	for (size_t i = 0; i < COUNT(sizes); i++) {
		size_t n = sizes[i];
		unsigned char *p = malloc(n), *wall = malloc(n);
		CHECK(p && wall);
		fill(p, n, 1);
		fill(wall, n, 2);
		uintptr_t at = (uintptr_t)p;
		CHECK(p = realloc(p, n));
		CHECK2((uintptr_t)p == at, n, 0);
		CHECK(p = realloc(p, n - 1));
		CHECK2((uintptr_t)p == at, n, 1);
		CHECK(p = realloc(p, n * 8));
		VERIFY(p, n - 1, 1);
		if (n < 50000) CHECK2((uintptr_t)p != at, n, 8);
		fill(p, n * 8, 3);
		VERIFY(wall, n, 2);
		CHECK(p = realloc(p, n / 8));
		VERIFY(p, n / 8, 3);
		free(wall);
		free(p);
	}
}

/* After a failed realloc the block is as it was, may be resized again, and is freed once. */
static void failed_realloc_keeps(void)
{
	static const size_t sizes[] = { 1, 100, 5000, 100000, 1000000 };
	for (size_t i = 0; i < COUNT(sizes); i++) {
		size_t n = sizes[i];
		volatile size_t huge = (size_t)PTRDIFF_MAX - 4096;
		unsigned char *p = malloc(n);
		CHECK(p);
		fill(p, n, i);
		errno = 0;
		void *volatile q = realloc(p, huge);
		CHECK(!q && errno == ENOMEM);
		VERIFY(p, n, i);
		CHECK(malloc_usable_size(p) >= n);
		CHECK(p = realloc(p, n + 1));
		VERIFY(p, n, i);
		free(p);
	}
}

static void *allocate_with_cancel_pending(void *done)
{
	enum { N = 300 };
	static unsigned char *p[N];
	CHECK(!pthread_cancel(pthread_self()));
	for (size_t i = 0; i < N; i++) {
		CHECK(p[i] = i % 3 ? malloc(i * 1000) : aligned_alloc(4096, i * 700));
		memset(p[i], 1, i * 700);
	}
	for (size_t i = 0; i < N; i++) CHECK(p[i] = realloc(p[i], i * 1500 + 1));
	for (size_t i = 0; i < N; i++) free(p[i]);
	*(int *)done = 1;
	pthread_testcancel();
	return NULL;
}

/* None of the functions is on POSIX's lists of cancellation points. */
static void no_cancellation_point(void)
{
	pthread_t thread;
	void *result;
	int done = 0;
	CHECK(!pthread_create(&thread, NULL, allocate_with_cancel_pending, &done));
	CHECK(!pthread_join(thread, &result));
	CHECK(result == PTHREAD_CANCELED && done);
}

static void *handler_block;
static int handled[3];

static void handle(int which)
{
	void *p = malloc(100 + (size_t)which * 1000);
	CHECK(p);
	memset(p, 1, 100);
	CHECK(handler_block = realloc(handler_block, 5000 + (size_t)which * 100000));
	free(p);
	handled[which]++;
}

static void prepare(void) { handle(0); }
static void parent(void) { handle(1); }
static void child(void) { handle(2); }

static void *keep_busy(void *stop)
{
	for (uint64_t i = 0; !*(volatile int *)stop; i++) use_heap(i, 20);
	return NULL;
}

/* Handlers of pthread_atfork allocate, resize and free, also while other threads do. */
static void fork_handlers(void)
{
	pthread_t thread;
	int stop = 0;
	CHECK(!pthread_atfork(prepare, parent, child));
	CHECK(!pthread_create(&thread, NULL, keep_busy, &stop));
	for (int i = 1; i <= 20; i++) {
		pid_t id = fork();
		CHECK(id >= 0);
		if (!id) {
			CHECK(handled[2] == 1);
			use_heap(1, 200);
			_exit(0);
		}
		wait_for(id, __LINE__);
		CHECK2(handled[0] == i && handled[1] == i, handled[0], handled[1]);
	}
	stop = 1;
	CHECK(!pthread_join(thread, NULL));
}

/* Older glibc has no _Fork. */
#ifdef __GLIBC__
#define HAS_FORK __GLIBC_PREREQ(2, 34)
#else
#define HAS_FORK 1
#endif

/* _Fork runs no handlers. Without other threads the child's heap is whole. */
static void underscore_fork(void)
{
#if HAS_FORK
	int before = handled[0];
	unsigned char *p = malloc(300);
	CHECK(p);
	fill(p, 300, 8);
	pid_t id = _Fork();
	CHECK(id >= 0);
	if (!id) {
		VERIFY(p, 300, 8);
		free(p);
		use_heap(2, 500);
		_exit(0);
	}
	wait_for(id, __LINE__);
	CHECK(handled[0] == before);
	free(p);
#endif
}

int main(void)
{
	zero_sizes_aligned();
	odd_sizes_aligned();
	in_place_and_moving();
	failed_realloc_keeps();
	underscore_fork();
	no_cancellation_point();
	fork_handlers();
	return 0;
}
