/* A thread for each request: it lives for a few hundred allocations of a request's kind (headers,
 * a buffer that grows, small objects), hands its answer to the thread that started it, and ends.
 * requests AT_ONCE REQUESTS */
#include "bench.h"

enum { OBJECTS = 200 };

static void *handle(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;
	struct block *object[OBJECTS];
	uint64_t sum = 0;
	char *buffer = NULL;
	size_t used = 0;
	for (int i = 0; i < OBJECTS; i++) {
		object[i] = block_new(log_size(&seed, 16, 1024), draw(&seed));
		if (i % 10 == 0) {
			buffer = checked(realloc(buffer, used + 600));
			memset(buffer + used, i, 600);
			used += 600;
		}
		if (i % 3 == 2) {
			sum = mix(sum, block_free(object[i - 1]));
			object[i - 1] = NULL;
		}
	}
	for (size_t i = 0; i < used; i += 600)
		if (buffer[i] != (char)(i / 60) || buffer[i + 599] != (char)(i / 60)) fail("the buffer");
	for (int i = 0; i < OBJECTS; i++)
		if (object[i]) sum = mix(sum, block_free(object[i]));
	free(buffer);
	return block_new(4000, (uint32_t)sum);
}

int main(int argc, char **argv)
{
	long at_once = argument(argc, argv, 1, 4), requests = argument(argc, argv, 2, 2000);
	pthread_t *running = checked(calloc((size_t)at_once, sizeof *running));
	uint64_t sum = 0;
	for (long i = 0; i < requests + at_once; i++) {
		pthread_t *thread = &running[i % at_once];
		if (i >= at_once) {
			void *answer;
			if (pthread_join(*thread, &answer)) fail("pthread_join");
			sum = mix(sum, block_free(answer));
		}
		if (i < requests && pthread_create(thread, NULL, handle, (void *)(uintptr_t)(i + 1)))
			fail("pthread_create");
	}
	free(running);
	return report("requests", sum, (uint64_t)requests * (OBJECTS + 2));
}
