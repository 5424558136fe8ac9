/* One of the libraries of startup_large_tls.c: much thread-local storage, and blocks allocated by
 * a constructor, before main. */
#include "check.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

static __thread struct {
	_Alignas(TLS_ALIGN) unsigned char first;
	unsigned char bytes[TLS_BYTES];
	unsigned char last;
} local = { .first = NUMBER, .last = NUMBER + 10 };

static unsigned char *early[40];

__attribute__((constructor)) static void before_main(void)
{
	for (size_t i = 0; i < COUNT(early); i++) {
		size_t n = i * i * 20 + NUMBER;
		CHECK(early[i] = i % 2 ? malloc(n) : calloc(1, n));
		fill(early[i], n, i + NUMBER);
	}
}

/* In each thread: initial values, zeros, alignment; then it is used. */
void JOIN(tls_check, NUMBER)(void)
{
	CHECK2(aligned(&local, TLS_ALIGN), &local, TLS_ALIGN);
	CHECK(local.first == NUMBER && local.last == NUMBER + 10);
	CHECK(all_zero(local.bytes, TLS_BYTES));
	memset(local.bytes, 0xcc, TLS_BYTES);
}

void JOIN(early_check, NUMBER)(void)
{
	for (size_t i = 0; i < COUNT(early); i++) {
		size_t n = i * i * 20 + NUMBER;
		VERIFY(early[i], n, i + NUMBER);
		if (i % 3 == 0) {
			CHECK(early[i] = realloc(early[i], n + 300));
			VERIFY(early[i], n, i + NUMBER);
		}
		free(early[i]);
	}
}
