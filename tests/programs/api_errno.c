/* POSIX-2024: free leaves errno as it was, whatever the block and whoever frees it. */
#include "check.h"
#include <pthread.h>

static const size_t sizes[] = {
	0, 1, 16, 100, 1000, 4096, 10000, 60000, 130000, 131072, 200000, 1 << 20, 5 << 20, 40 << 20,
};

static void *remote(void *blocks)
{
	void **p = blocks;
	for (size_t i = 0; i < 2 * COUNT(sizes); i++) {
		errno = 4321;
		free(p[i]);
		CHECK2(errno == 4321, i, errno);
	}
	return NULL;
}

int main(void)
{
	errno = 1234;
	free(NULL);
	CHECK(errno == 1234);
	for (int round = 0; round < 3; round++) {
		void *p[2 * COUNT(sizes)];
		for (size_t i = 0; i < COUNT(sizes); i++) {
			p[2 * i] = malloc(sizes[i]);
			p[2 * i + 1] = aligned_alloc(4096, sizes[i]);
			CHECK(p[2 * i] && p[2 * i + 1]);
		}
		if (round == 2) {
			pthread_t thread;
			CHECK(!pthread_create(&thread, NULL, remote, p));
			CHECK(!pthread_join(thread, NULL));
			break;
		}
		for (size_t i = 0; i < COUNT(p); i++) {
			errno = 1234;
			free(p[i]);
			CHECK2(errno == 1234, i, errno);
		}
	}
	/* Many, so that groups and mappings are given back on the way. */
	enum { N = 3000 };
	static void *many[N];
	for (size_t s = 0; s < COUNT(sizes) - 4; s++) {
		for (size_t i = 0; i < N; i++) CHECK(many[i] = malloc(sizes[s]));
		errno = 99;
		for (size_t i = 0; i < N; i++) free(many[(i * 7) % N]);
		CHECK2(errno == 99, sizes[s], errno);
	}
	return 0;
}
