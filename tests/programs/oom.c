/* Shortage: allocate until there is no more. NULL comes with ENOMEM, every live block keeps its
 * content, and what is freed can be had again. Argument:
 * as, data: small and middle blocks under RLIMIT_AS or RLIMIT_DATA;
 * large:    large and aligned blocks under RLIMIT_AS;
 * threads:  several threads at the limit at once;
 * realloc:  growth that fails leaves the block as it was. */
#include "check.h"
#include <pthread.h>
#include <sys/resource.h>

#define ROOM (48 * MB)
enum { MOST = 100000 };
static struct { unsigned char *p; size_t n; } block[MOST];

static void limit(int what, size_t to)
{
	struct rlimit l = { to, to };
	CHECK(!setrlimit(what, &l));
}

static size_t small_size(Random *r)
{
	return below(r, 4) ? below(r, 3000) : below(r, 60000);
}

static size_t large_size(Random *r)
{
	return 150000 + below(r, below(r, 4) ? 500000 : 4000000);
}

static void *some(Random *r, size_t n, size_t i)
{
	errno = 0;
	void *p = i % 7 == 0 ? calloc(1, n) : i % 7 == 1 ? aligned_alloc(256, n) : malloc(n);
	if (p && i % 7 == 0) CHECK(all_zero(p, n));
	if (!p) CHECK2(errno == ENOMEM, n, errno);
	(void)r;
	return p;
}

/* Allocates until several sizes in a row fail; returns how many blocks it got. */
static size_t exhaust(size_t from, size_t (*size)(Random *), size_t *bytes)
{
	Random r = random_from(from + 3);
	size_t i = from, refused = 0;
	*bytes = 0;
	while (i < MOST && refused < 40) {
		size_t n = refused ? 1 + size(&r) / (refused + 1) : size(&r);
		unsigned char *p = some(&r, n, i);
		if (!p) {
			refused++;
			continue;
		}
		fill(p, n, i);
		block[i].p = p;
		block[i].n = n;
		*bytes += n;
		i++;
	}
	CHECK2(i < MOST, i, refused);
	return i;
}

static void verify(size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (block[i].p) VERIFY(block[i].p, block[i].n, i);
}

static void drop(size_t i)
{
	if (block[i].p) VERIFY(block[i].p, block[i].n, i);
	errno = 4321;
	free(block[i].p);
	CHECK2(errno == 4321, i, errno);
	block[i].p = NULL;
}

static void fill_up(size_t (*size)(Random *))
{
	size_t first = 0, bytes;
	for (int round = 0; round < 4; round++) {
		size_t count = exhaust(0, size, &bytes);
		verify(count);
		/* Most of the room can be used. */
		CHECK2(bytes > ROOM / 2, bytes, round);
		if (!round) first = bytes;
		CHECK2(bytes > first / 10 * 8, bytes, first);
		/* Holes: some more fit, and all others are untouched. */
		for (size_t i = 0; i < count; i += 2) drop(i);
		size_t more = exhaust(count, size, &bytes);
		CHECK2(bytes > ROOM / 10, bytes, round);
		verify(more);
		for (size_t i = 0; i < more; i++) drop((i * 7919) % more);
		for (size_t i = 0; i < more; i++) drop(i);
		/* What small blocks used serves larger ones as well. */
		void *big[16];
		for (size_t i = 0; i < COUNT(big); i++) {
			CHECK2(big[i] = malloc(MB), i, round);
			memset(big[i], 1, MB);
		}
		for (size_t i = 0; i < COUNT(big); i++) free(big[i]);
	}
}

static pthread_barrier_t begin;

static void *thread_work(void *number)
{
	enum { OWN = 6000 };
	static struct { unsigned char *p; size_t n; } own[4][OWN];
	size_t me = (uintptr_t)number, refused = 0;
	Random r = random_from(me);
	pthread_barrier_wait(&begin);
	for (int round = 0; round < 6; round++) {
		for (size_t i = 0; i < OWN; i++) {
			if (own[me][i].p) VERIFY(own[me][i].p, own[me][i].n, i);
			free(own[me][i].p);
			own[me][i].n = round % 2 ? below(&r, 400) : small_size(&r);
			own[me][i].p = some(&r, own[me][i].n, i);
			if (own[me][i].p) fill(own[me][i].p, own[me][i].n, i);
			else refused++;
		}
	}
	for (size_t i = 0; i < OWN; i++) {
		if (own[me][i].p) VERIFY(own[me][i].p, own[me][i].n, i);
		free(own[me][i].p);
	}
	return (void *)(refused + 1);
}

static void threads(void)
{
	pthread_t thread[4];
	size_t refused = 0;
	CHECK(!pthread_barrier_init(&begin, NULL, COUNT(thread) + 1));
	for (uintptr_t i = 0; i < COUNT(thread); i++)
		CHECK(!pthread_create(&thread[i], NULL, thread_work, (void *)i));
	limit(RLIMIT_AS, mapped_bytes() + ROOM);
	pthread_barrier_wait(&begin);
	for (size_t i = 0; i < COUNT(thread); i++) {
		void *result;
		CHECK(!pthread_join(thread[i], &result));
		refused += (size_t)result - 1;
	}
	CHECK2(refused > 0, refused, 0);
	for (int i = 0; i < 10000; i++) {
		void *p = malloc((size_t)i);
		CHECK2(p, i, errno);
		free(p);
	}
}

static void growth(void)
{
	limit(RLIMIT_AS, mapped_bytes() + ROOM);
	for (size_t start = 1; start < 2 * MB; start *= 11) {
		for (int wall = 0; wall < 2; wall++) {
			size_t n = start;
			unsigned char *p = malloc(n), *q = NULL;
			CHECK(p);
			fill(p, n, start);
			for (;;) {
				size_t more = n + n / 3 + 1;
				errno = 0;
				unsigned char *moved = realloc(p, more);
				if (!moved) {
					CHECK2(errno == ENOMEM, more, errno);
					VERIFY(p, n, start);
					break;
				}
				p = moved;
				VERIFY(p, n, start);
				n = more;
				fill(p, n, start);
				if (wall) {
					free(q);
					CHECK(q = malloc(200));
				}
			}
			CHECK2(n > 4 * MB, n, start);
			/* Shrinking never needs memory that is not there. */
			CHECK(p = realloc(p, n / 2));
			VERIFY(p, n / 2, start);
			CHECK(p = realloc(p, 1000));
			VERIFY(p, 1000, start);
			free(p);
			free(q);
		}
	}
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "as";
	/* The table and the first heap pages are there before the limit. */
	memset(block, 0, sizeof block);
	free(malloc(1000));
	if (!strcmp(how, "threads")) {
		threads();
	} else if (!strcmp(how, "realloc")) {
		growth();
	} else if (!strcmp(how, "large")) {
		limit(RLIMIT_AS, mapped_bytes() + ROOM);
		fill_up(large_size);
	} else if (!strcmp(how, "data")) {
		/* Counts private writable memory: .bss and stack are a few MB. */
		limit(RLIMIT_DATA, ROOM + 16 * MB);
		fill_up(small_size);
	} else {
		limit(RLIMIT_AS, mapped_bytes() + ROOM);
		fill_up(small_size);
	}
	return 0;
}
