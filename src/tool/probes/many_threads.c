/* A thousand threads, one after the other, each with 256 KB of small blocks, half of them freed by
 * the main thread after the thread has gone. What they leave must be used again: prints the
 * resident KB after the first ten threads and after all. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 2048, SIZE = 128, THREADS = 1000, FIRST = 10 };

static char *left[BLOCKS];

static void *work(void *arg)
{
	char *mine[BLOCKS];
	for (int i = 0; i < BLOCKS; i++) {
		mine[i] = malloc(SIZE);
		if (!mine[i]) return "no memory";
		memset(mine[i], i, SIZE);
	}
	for (int i = 0; i < BLOCKS; i++) {
		left[i] = i % 2 ? mine[i] : 0;
		if (!left[i]) free(mine[i]);
	}
	return 0;
}

static long resident_kb(void)
{
	char line[256];
	long kb = -1;
	FILE *f = fopen("/proc/self/status", "r");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "VmRSS:", 6)) kb = atol(line + 6);
	if (f) fclose(f);
	return kb;
}

int main(void)
{
	long early = 0;
	for (int n = 0; n < THREADS; n++) {
		pthread_t t;
		void *bad = 0;
		if (pthread_create(&t, 0, work, 0) || pthread_join(t, &bad) || bad) return 1;
		for (int i = 0; i < BLOCKS; i++) free(left[i]);
		if (n == FIRST - 1) early = resident_kb();
	}
	printf("%ld %ld\n", early, resident_kb());
	return 0;
}
