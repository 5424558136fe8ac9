/* Start-up with megabytes of thread-local storage: the dynamic linker then allocates early and
 * moves the main thread's own structure. Blocks made before main must survive and be freeable. */
#include "check.h"
#include <pthread.h>

static __thread struct {
	_Alignas(1024) unsigned char first;
	unsigned char bytes[700000];
	unsigned char last;
} local = { .first = 4, .last = 14 };

static unsigned char *early[40];

__attribute__((constructor)) static void before_main(void)
{
	for (size_t i = 0; i < COUNT(early); i++) {
		CHECK(early[i] = malloc(i * 100));
		fill(early[i], i * 100, i);
	}
}

#ifndef ON_STATIC
void tls_check1(void), tls_check2(void), tls_check3(void);
void early_check1(void), early_check2(void), early_check3(void);
#endif

static void *check_tls(void *nothing)
{
	(void)nothing;
	CHECK(aligned(&local, 1024));
	CHECK(local.first == 4 && local.last == 14);
	CHECK(all_zero(local.bytes, sizeof local.bytes));
	memset(local.bytes, 0x33, sizeof local.bytes);
#ifndef ON_STATIC
	tls_check1();
	tls_check2();
	tls_check3();
#endif
	unsigned char *p[100];
	for (size_t i = 0; i < COUNT(p); i++) {
		CHECK(p[i] = malloc(i * 30));
		fill(p[i], i * 30, i);
	}
	for (size_t i = 0; i < COUNT(p); i++) VERIFY(p[i], i * 30, i);
	for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
	return NULL;
}

int main(void)
{
	check_tls(NULL);
	for (int round = 0; round < 5; round++) {
		pthread_t thread[6];
		for (size_t i = 0; i < COUNT(thread); i++)
			CHECK(!pthread_create(&thread[i], NULL, check_tls, NULL));
		for (size_t i = 0; i < COUNT(thread); i++) CHECK(!pthread_join(thread[i], NULL));
	}
	for (size_t i = 0; i < COUNT(early); i++) {
		VERIFY(early[i], i * 100, i);
		free(early[i]);
	}
#ifndef ON_STATIC
	early_check1();
	early_check2();
	early_check3();
#endif
	CHECK(local.bytes[5] == 0x33);
	return 0;
}
