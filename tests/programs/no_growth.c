/* A system where a source of memory is closed: something lies right above the break, a system call
 * filter refuses mappings. Argument:
 * brk:  the break never moves;
 * mmap: no new mappings; in musl the break must then serve (the libraries may have mappings only);
 * both: nothing grows; ENOMEM, and nothing is lost. */
#include "check.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* The kernel's interface; musl's compiler wrapper does not see the kernel's headers. */
struct filter { uint16_t code; uint8_t yes, no; uint32_t k; };
struct program { unsigned short count; struct filter *filter; };
enum { LOAD = 0x20, EQUAL = 0x15, RETURN = 0x06, NUMBER = 0 };
enum { ALLOW = 0x7fff0000, FAIL = 0x00050000, MODE_FILTER = 2 };

/* What musl calls where both are. */
#ifdef SYS_mmap2
#define MMAP SYS_mmap2
#else
#define MMAP SYS_mmap
#endif

static void close_break(void)
{
	size_t page = page_bytes();
	uintptr_t end = (uintptr_t)syscall(SYS_brk, 0);
	end = (end + page - 1) & ~(page - 1);
	/* No more than a hint is needed: the place is free, or else the break is blocked anyway. */
	mmap((void *)end, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t now = (uintptr_t)syscall(SYS_brk, end + 2 * page);
	if (now == end + 2 * page) skip("the break cannot be blocked here");
}

static void close_mappings(void)
{
	struct filter filter[] = {
		{ LOAD, 0, 0, NUMBER },
		{ EQUAL, 1, 0, MMAP },
		{ EQUAL, 0, 1, SYS_mremap },
		{ RETURN, 0, 0, FAIL | ENOMEM },
		{ RETURN, 0, 0, ALLOW },
	};
	struct program program = { COUNT(filter), filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, MODE_FILTER, &program))
		skip("no system call filters (seccomp) here");
}

enum { MOST = 60000 };
static struct { unsigned char *p; size_t n; } block[MOST];

/* Allocates up to `most` bytes; returns what it got. */
static size_t take(size_t most, size_t *count)
{
	Random r = random_from(9);
	size_t bytes = 0, i = 0, refused = 0;
	while (i < MOST && bytes < most && refused < 50) {
		size_t n = refused ? below(&r, 100) : below(&r, 2000);
		errno = 0;
		unsigned char *p = malloc(n);
		if (!p) {
			CHECK2(errno == ENOMEM, n, errno);
			refused++;
			continue;
		}
		fill(p, n, i);
		block[i].p = p;
		block[i].n = n;
		bytes += n;
		i++;
	}
	*count = i;
	return bytes;
}

static void give_back(size_t count)
{
	for (size_t i = 0; i < count; i++) VERIFY(block[i].p, block[i].n, i);
	for (size_t i = 0; i < count; i++) {
		size_t k = (i * 7919) % count;
		if (!block[k].p) continue;
		free(block[k].p);
		block[k].p = NULL;
	}
	for (size_t i = 0; i < count; i++) free(block[i].p);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "both";
	int no_brk = strcmp(how, "mmap"), no_mmap = strcmp(how, "brk");
	size_t count, bytes;
	memset(block, 0, sizeof block);
	unsigned char *early = malloc(5000), *large = malloc(400000);
	CHECK(early && large);
	fill(early, 5000, 1);
	fill(large, 400000, 2);
	if (no_brk) close_break();
	if (no_mmap) close_mappings();
	for (int round = 0; round < 3; round++) {
		bytes = take(20 * MB, &count);
		if (!no_mmap) CHECK2(bytes >= 20 * MB, bytes, round);
#ifdef ON_MUSL
		if (!no_brk) CHECK2(bytes >= MB, bytes, round);
#endif
		if (no_mmap && no_brk) CHECK2(bytes < 20 * MB, bytes, round);
		errno = 0;
		unsigned char *p = malloc(8 * MB);
		CHECK(p || errno == ENOMEM);
		free(p);
		p = realloc(large, 6 * MB);
		if (!no_mmap) CHECK(p);
		if (p) large = p;
		VERIFY(large, 400000, 2);
		VERIFY(early, 5000, 1);
		give_back(count);
	}
	free(early);
	free(large);
	return 0;
}
