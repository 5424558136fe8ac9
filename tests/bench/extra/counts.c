/* A program whose counts are known: N blocks of 64 bytes, freed one after the other by the thread
 * that made them ("own"), or made by one thread and freed by another ("other").
 * counts own|other N */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void **block;
static long n;

static void *free_all(void *unused)
{
	(void)unused;
	for (long i = 0; i < n; i++) free(block[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc < 3) return 2;
	n = atol(argv[2]);
	if (!strcmp(argv[1], "own")) {
		for (long i = 0; i < n; i++) {
			void *p = malloc(64);
			if (!p) return 1;
			free(p);
		}
		return 0;
	}
	block = malloc(sizeof *block * (size_t)n);
	if (!block) return 1;
	for (long i = 0; i < n; i++)
		if (!(block[i] = malloc(64))) return 1;
	pthread_t thread;
	if (pthread_create(&thread, NULL, free_all, NULL) || pthread_join(thread, NULL)) return 1;
	free(block);
	return 0;
}
