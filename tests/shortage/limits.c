/* Limits that the system sets, not single refusals. Argument:
 * fill:    under a limit of address space or data that the caller set: allocate until null, verify,
 *          free; the same room must be there again, for small and for large blocks;
 * refuse:  mappings above 64 MiB are refused, as a kernel does that does not overcommit (emulated
 *          by a system call filter: /proc/sys/vm is the machine's, not a test's);
 * brk, nobrk: the break is forbidden (EPERM) or does not exist (ENOSYS), by a filter;
 * live:    under a limit of memory (cgroup): much is allocated, little of it at a time;
 * room N:  N KiB more address space than there is before the first allocation: how much of it
 *          becomes blocks, twice;
 * data N:  N KiB of data: the longest block;
 * locked:  all memory is locked, now and in future: what a few small blocks and threads lock;
 * locked N: the same under a limit of N KiB, by a user without rights. */
#include "shortage.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* The kernel's interface; musl's compiler wrapper does not see the kernel's headers. */
struct filter { uint16_t code; uint8_t yes, no; uint32_t k; };
struct program { unsigned short count; struct filter *filter; };
enum { LOAD = 0x20, EQUAL = 0x15, ABOVE = 0x25, RETURN = 0x06, NUMBER = 0, ARGUMENT = 16 };
enum { ALLOW = 0x7fff0000, FAIL = 0x00050000, MODE_FILTER = 2 };
#define HIGH (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 4 : 0)
#define BOUND (64 * MB)

static void install(struct filter *filter, unsigned short length)
{
	struct program program = { length, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, MODE_FILTER, &program))
		skip("no system call filters (seccomp) here");
}

static void forbid_break(int error)
{
	struct filter filter[] = {
		{ LOAD, 0, 0, NUMBER },
		{ EQUAL, 0, 1, SYS_brk },
		{ RETURN, 0, 0, FAIL | (uint32_t)error },
		{ RETURN, 0, 0, ALLOW },
	};
	install(filter, COUNT(filter));
}

/* Lengths are argument 1 of mmap, 2 of mremap. */
static void refuse_big(void)
{
	struct filter filter[] = {
		{ LOAD, 0, 0, NUMBER },
		{ EQUAL, 0, 4, SYS_mmap },
		{ LOAD, 0, 0, ARGUMENT + 8 + HIGH },
		{ EQUAL, 0, 7, 0 },
		{ LOAD, 0, 0, ARGUMENT + 8 + 4 - HIGH },
		{ ABOVE, 5, 4, BOUND },
		{ EQUAL, 0, 3, SYS_mremap },
		{ LOAD, 0, 0, ARGUMENT + 16 + HIGH },
		{ EQUAL, 0, 2, 0 },
		{ LOAD, 0, 0, ARGUMENT + 16 + 4 - HIGH },
		{ ABOVE, 0, 1, BOUND },
		{ RETURN, 0, 0, FAIL | ENOMEM },
		{ RETURN, 0, 0, ALLOW },
	};
	/* Jumps count from the next line: the last two answer. */
	filter[3].no = 7;
	filter[5].yes = 5, filter[5].no = 6;
	filter[6].no = 5;
	filter[8].no = 2;
	filter[10].yes = 0, filter[10].no = 1;
	install(filter, COUNT(filter));
}

enum { SLOTS = 60000 };
static unsigned char *slot[SLOTS];

static size_t size_of(size_t i, size_t most)
{
	return 1 + mix(i + 17) % (i % 4 ? most / 16 : most);
}

/* Fills what there is; bytes got. */
static size_t fill_up(size_t most, size_t *got)
{
	size_t bytes = 0, i;
	for (i = 0; i < SLOTS; i++) {
		size_t n = size_of(i, most);
		errno = 0;
		if (!(slot[i] = malloc(n))) {
			CHECK2(errno == ENOMEM, n, errno);
			break;
		}
		fill(slot[i], n, i);
		bytes += n;
	}
	CHECK(i < SLOTS);
	*got = i;
	return bytes;
}

static void drop_all(size_t got, size_t most)
{
	for (size_t i = 0; i < got; i++) VERIFY(slot[i], size_of(i, most), i);
	for (size_t i = 0; i < got; i++) free(slot[(i * 7919) % got]), slot[(i * 7919) % got] = 0;
	for (size_t i = 0; i < got; i++) free(slot[i]);
}

static void fill_twice(void)
{
	static const size_t most[] = { 3000, 60000, 700000 };
	size_t first[COUNT(most)];
	for (int round = 0; round < 3; round++) {
		for (size_t k = 0; k < COUNT(most); k++) {
			size_t got, bytes = fill_up(most[k], &got);
			if (!round) first[k] = bytes;
			/* A row of frees between: the room is there again. */
			CHECK2(bytes > first[k] / 10 * 7, bytes, first[k]);
			drop_all(got, most[k]);
		}
	}
	char text[200] = "reached";
	for (size_t k = 0; k < COUNT(most); k++) {
		append(text, sizeof text, k ? ", " : " ");
		append_number(text, sizeof text, first[k] / KB);
	}
	append(text, sizeof text, " KiB in blocks up to 3000, 60000, 700000 bytes\n");
	say_to(1, text);
}

static void big(void)
{
	refuse_big();
	void *raw = mmap(0, BOUND + MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(raw == MAP_FAILED && errno == ENOMEM);
	begin();
	for (size_t n = 70 * MB; n < (size_t)1 << 45; n *= 3) {
		size_t before = nulls;
		take(n);
		take_aligned(4096, n);
		CHECK2(nulls == before + 2, n, nulls);
		take(1000);
		resize(count - 1, n);
		CHECK2(nulls == before + 3, n, nulls);
	}
	/* Growth stops at the bound with its bytes. */
	take(MB);
	while (block[count - 1].n < BOUND / 2) resize(count - 1, block[count - 1].n * 2);
	resize(count - 1, 2 * BOUND);
	CHECK(block[count - 1].n <= BOUND);
	nulls = 0;
	end();
}

static void without_break(int error)
{
	forbid_break(error);
	begin();
	Random r = random_from(3);
	for (int i = 0; i < 3000; i++) {
		take(random_size(&r) % 60000);
		if (count > 1000) drop(below(&r, MOST));
	}
	CHECK(nulls == 0);
	end();
}

/* 16 MiB live at a time, of 1 GiB in all. */
static void live(void)
{
	Random r = random_from(4);
	size_t bytes = 0, total = 0;
	memset(block, 0, sizeof block);
	while (total < 1024 * MB) {
		size_t n = below(&r, 3) ? below(&r, 30000) : below(&r, 400000);
		while (count > MOST - 2 || bytes + n > 16 * MB) {
			size_t i = below(&r, count);
			bytes -= block[i].n;
			drop(i);
		}
		take(n);
		bytes += n;
		total += n;
	}
	CHECK(nulls == 0);
	char text[100] = "peak ";
	append_number(text, sizeof text, peak_resident_bytes() / KB);
	append(text, sizeof text, " KiB for 16384 KiB live\n");
	say_to(1, text);
}

static void limit(int what, size_t bytes)
{
	struct rlimit to = { bytes, bytes };
	CHECK(!setrlimit(what, &to));
}

/* All room in blocks of n bytes, in a list, since an array would have to be as long as the largest
 * room. */
static size_t fill_room(size_t n)
{
	void **first = 0, **p;
	size_t bytes = 0;
	while ((p = malloc(n))) {
		memset(p, 1, n);
		*p = first;
		first = p;
		bytes += n;
	}
	while ((p = first)) {
		first = *p;
		free(p);
	}
	return bytes;
}

static void room(size_t kib)
{
	size_t mapped, resident;
	read_statm(&mapped, &resident);
	limit(RLIMIT_AS, mapped + kib * KB);
	size_t first = fill_room(1000), again = fill_room(1000);
	CHECK2(first >= kib * KB / 100 * 85, first, kib);
	CHECK2(again >= first / 100 * 95, first, again);
}

static void data(size_t kib)
{
	limit(RLIMIT_DATA, kib * KB);
	free(malloc(10));
	size_t least = 0, most = 2 * kib * KB;
	while (most - least > KB) {
		size_t n = least + (most - least) / 2;
		char *p = malloc(n);
		if (p) least = n;
		else most = n;
		free(p);
	}
	/* What the program (tables above of half a megabyte) and its libc have counts as well. */
	CHECK2(least + MB >= kib * KB, least, kib);
}

static void *small_thread(void *unused)
{
	(void)unused;
	void *p = malloc(1000);
	CHECK(p);
	free(p);
	return 0;
}

static void locked(size_t kib)
{
	if (kib) {
		limit(RLIMIT_MEMLOCK, kib * KB);
		if (setuid(65534) && !getuid()) skip("no user without rights here");
	}
	free(malloc(10));
	if (mlockall(MCL_CURRENT | MCL_FUTURE)) skip("mlockall is refused here");
	size_t start, now, resident;
	static void *p[1000];
	read_statm(&start, &resident);
	pthread_attr_t small;
	pthread_attr_init(&small);
	CHECK(!pthread_attr_setstacksize(&small, 64 * KB));
	size_t bytes = 0;
	for (size_t i = 0; i < COUNT(p); bytes += 100 + i++) CHECK2(p[i] = malloc(100 + i), i, 0);
	for (int i = 0; i < 2; i++) {
		pthread_t thread;
		CHECK(!pthread_create(&thread, &small, small_thread, 0));
		CHECK(!pthread_join(thread, 0));
	}
	void *large = malloc(MB);
	CHECK(large);
	read_statm(&now, &resident);
	/* All that is mapped is locked. Two stacks of threads may be kept. */
	CHECK2(over(now, start) < bytes + MB + 640 * KB, over(now, start), bytes);
	for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
	free(large);
}

int main(int argc, char **argv)
{
	size_t number = argc > 2 ? strtoul(argv[2], 0, 10) : 0;
	const char *how = argc > 1 ? argv[1] : "fill";
	if (!strcmp(how, "refuse")) big();
	else if (!strcmp(how, "brk")) without_break(EPERM);
	else if (!strcmp(how, "nobrk")) without_break(ENOSYS);
	else if (!strcmp(how, "live")) live();
	else if (!strcmp(how, "room")) room(number);
	else if (!strcmp(how, "data")) data(number);
	else if (!strcmp(how, "locked")) locked(number);
	else fill_twice();
	return 0;
}
