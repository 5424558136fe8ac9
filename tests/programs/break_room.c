/* A program beside byssal may have a use of its own for the break: it moves far, whatever was
 * allocated before. Raw calls, as musl's sbrk moves nothing. */
#include "check.h"
#include <sys/syscall.h>

/* Of 64 GiB that are left (16 MiB on 32 bits), so much as any system lets a program have. */
#define ROOM (sizeof(void *) == 8 ? 4096 * MB : 12 * MB)
#define STEP (ROOM / 16)

static char *move(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

int main(void)
{
	char *small = malloc(100), *large = malloc(MB);
	CHECK(small && large);
	char *start = move(NULL), *end = start;
	for (size_t done = 0; done < ROOM; done += STEP) {
		char *moved = move(end + STEP);
		CHECK2(moved == end + STEP, done, moved - end);
		end = moved;
		end[-1] = 1;
		char *more = malloc(100000);
		CHECK(more && (more < start || more >= end));
		free(more);
	}
	/* What came from the break before is not byssal's. */
	CHECK(small < start || small >= end);
	CHECK(move(start) == start);
	free(small);
	free(large);
	return 0;
}
