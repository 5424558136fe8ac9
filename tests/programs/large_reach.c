/* What is out of reach around a large block, and what realloc and free give up of it. */
#include "check.h"

static int channel[2];

/* Whether the byte may be read: the system says so, no signal comes. */
static int is_address_in_reach(uintptr_t address)
{
	char byte;
	if (write(channel[1], (const void *)address, 1) != 1) {
		CHECK(errno == EFAULT);
		return 0;
	}
	CHECK(read(channel[0], &byte, 1) == 1);
	return 1;
}

static int is_in_reach(const volatile char *p)
{
	return is_address_in_reach((uintptr_t)p);
}

int main(void)
{
	int hardened = is_hardened();
	CHECK(pipe(channel) == 0);

	/* A string without an end stops right behind the block. */
	size_t n = 300000;
	char *volatile p = malloc(n);
	CHECK(p);
	memset(p, 'a', n);
	volatile char *behind = p + n, *before = p - 1;
	CHECK(*behind == 0);
	CHECK(is_in_reach(p) && is_in_reach(p + n - 1));
	if (hardened) CHECK(!is_in_reach(before));

	/* The end of a block that shrinks is gone at once, but for guard pages (64 KiB at most) and
	 * the rest of a page, which is clear. */
	CHECK(p = realloc(p, 150000));
	CHECK(is_in_reach(p + 149999) && p[149999] == 'a');
	CHECK(!is_in_reach(p + n - 1));
	volatile char *end = p;
	if (hardened) CHECK(!is_in_reach(end + 155000));
	CHECK(end[150001 + 128] == 0);

	/* So is what was freed. */
	uintptr_t freed = (uintptr_t)p;
	free(p);
	CHECK(!is_address_in_reach(freed) && !is_address_in_reach(freed + 149999));

	/* A block of whole pages ends where access ends, or at a NUL. */
	CHECK(p = malloc(262144));
	behind = p + 262144;
	if (hardened) CHECK(!is_in_reach(behind));
	else CHECK(*behind == 0);
	free(p);
	return 0;
}
