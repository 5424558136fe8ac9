/* What one call takes in a heap that is large, or has many holes: whether somebody walks through all
 * of it. Prints microseconds for each call that is measured, in the mean, and the longest.
 *
 *   walks growth|spans|returned|aligned|mapped|asleep N
 *
 * growth    a buffer grows from 8 to 140 KB, beside N small blocks of which one in 16 is left
 * spans     small blocks, where N holes of nine pages are
 * returned  a run of eight pages is freed below N others, and taken anew behind one of nine
 * aligned   N small blocks, each at a multiple of 8 KiB
 * mapped    every other one of N blocks of 140 KB is freed, then made anew
 * asleep    pairs of 200 KB, while another thread frees one written block of N MiB
 */
#include "../programs/bench.h"
#include <pthread.h>
#include <time.h>

#define PAGE 4096

static double began, longest, sum;
static long calls;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void begin(void)
{
	began = now();
}

/* Ends what `begin` began: `count` calls. */
static void end(long count)
{
	double took = now() - began;
	sum += took;
	calls += count;
	if (took / (double)count > longest) longest = took / (double)count;
}

static char *written(void *block)
{
	*(char *)checked(block) = 1;
	return block;
}

/* N blocks of `size` bytes at multiples of `align`. */
static char **blocks(long n, size_t align, size_t size)
{
	char **all = checked(malloc(sizeof *all * (size_t)n));
	for (long i = 0; i < n; i++) all[i] = written(align > 16 ? aligned_alloc(align, size) : malloc(size));
	return all;
}

static void growth(long n)
{
	uint64_t seed = 1;
	char **all = blocks(n, 1, 24);
	for (long i = n - 1; i > 0; i--) {
		long k = (long)below(&seed, (uint32_t)i + 1);
		char *other = all[i];
		all[i] = all[k];
		all[k] = other;
	}
	for (long i = n / 16; i < n; i++) free(all[i]);
	for (int turn = 0; turn < 40; turn++) {
		for (int i = 0; i < 100; i++) {
			long k = (long)below(&seed, (uint32_t)(n / 16));
			free(all[k]);
			all[k] = written(malloc(24 + 16 * below(&seed, 3)));
		}
		begin();
		char *buffer = NULL;
		for (size_t size = 8000; size < 140000; size += 4000)
			written(buffer = realloc(buffer, size));
		free(buffer);
		end(1);
	}
}

static void spans(long n)
{
	char **all = blocks(2 * n, PAGE, 9 * PAGE);
	for (long i = 0; i < 2 * n; i += 2) free(all[i]);
	/* What there is of aligned places is used up. */
	blocks(n / 2, 1, 8 * PAGE);
	for (int i = 0; i < 100; i++) {
		begin();
		blocks(1000, 1, 100);
		end(1000);
	}
}

static void returned(long n)
{
	char **all = blocks(n, PAGE, 8 * PAGE);
	for (int i = 0; i < 2000; i++) {
		begin();
		free(all[5]);
		char *longer = written(aligned_alloc(PAGE, 9 * PAGE));
		all[5] = written(aligned_alloc(PAGE, 8 * PAGE));
		free(longer);
		end(1);
	}
}

static void aligned(long n)
{
	for (long i = 0; i < n; i += 100) {
		begin();
		blocks(100, 2 * PAGE, 100);
		end(100);
	}
}

static void mapped(long n)
{
	char **all = blocks(n, 1, 140000);
	for (long i = 0; i < n; i += 2) free(all[i]);
	for (long i = 0; i + 200 < n; i += 200) {
		begin();
		for (long k = i; k < i + 200; k += 2) all[k] = written(malloc(140000));
		end(100);
	}
}

static pthread_barrier_t barrier;
static int is_freed;

static void *frees(void *block)
{
	pthread_barrier_wait(&barrier);
	free(block);
	__atomic_store_n(&is_freed, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void asleep(long n)
{
	char *block = checked(malloc((size_t)n << 20));
	memset(block, 1, (size_t)n << 20);
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	/* What malloc keeps of these is what it gives below, without a call of the system. */
	for (int i = 0; i < 1000; i++) free(written(malloc(200000)));
	if (pthread_create(&thread, NULL, frees, block)) abort();
	pthread_barrier_wait(&barrier);
	while (!__atomic_load_n(&is_freed, __ATOMIC_RELAXED)) {
		begin();
		free(written(malloc(200000)));
		end(1);
	}
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(long);
	} all[] = {{"growth", growth}, {"spans", spans}, {"returned", returned}, {"aligned", aligned},
		{"mapped", mapped}, {"asleep", asleep}};
	long n = argument(argc, argv, 2, 0);
	for (size_t i = 0; argc == 3 && n > 0 && i < sizeof all / sizeof *all; i++)
		if (!strcmp(argv[1], all[i].name)) {
			all[i].run(n);
			printf("%.3f %.3f\n", sum / (double)(calls ? calls : 1), longest);
			return 0;
		}
	fprintf(stderr, "walks growth|spans|returned|aligned|mapped|asleep N\n");
	return 2;
}
