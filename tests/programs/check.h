/* What every test program uses: a check that needs no heap and no stdio, owner's patterns, a
 * generator of reproducible numbers, and the process's footprint. Include it first. */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KB ((size_t)1 << 10)
#define MB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof *(array))
#define MAYBE_UNUSED __attribute__((unused))

/* ---- Messages: write(2) only ------------------------------------------------------------- */

static MAYBE_UNUSED void say_to(int fd, const char *text)
{
	size_t n = strlen(text);
	while (n) {
		ssize_t done = write(fd, text, n);
		if (done < 0 && errno == EINTR) continue;
		if (done <= 0) return;
		text += done;
		n -= (size_t)done;
	}
}

/* Appends to a text of at most `most` bytes with its zero. */
static MAYBE_UNUSED void append(char *text, size_t most, const char *more)
{
	size_t n = strlen(text);
	while (*more && n + 1 < most) text[n++] = *more++;
	text[n] = 0;
}

static MAYBE_UNUSED void append_number(char *text, size_t most, uint64_t value)
{
	char digits[24], *p = digits + sizeof digits;
	*--p = 0;
	do *--p = (char)('0' + value % 10); while (value /= 10);
	append(text, most, p);
}

static MAYBE_UNUSED void say_number(int fd, uint64_t value)
{
	char digits[24] = "";
	append_number(digits, sizeof digits, value);
	say_to(fd, digits);
}

/* One write, so that threads that fail together stay readable. */
/* What the random choices of this run depend on; 0 unless the environment says otherwise. */
static MAYBE_UNUSED uint64_t run_seed(void)
{
	const char *text = getenv("BYSSAL_SEED");
	return text ? strtoull(text, NULL, 10) : 0;
}

static MAYBE_UNUSED __attribute__((noreturn)) void check_failed(const char *file, int line,
	const char *what, uint64_t a, uint64_t b)
{
	int error = errno;
	char text[1000] = "";
	append(text, sizeof text, file);
	append(text, sizeof text, ":");
	append_number(text, sizeof text, (uint64_t)line);
	append(text, sizeof text, ": failed: ");
	append(text, sizeof text, what);
	append(text, sizeof text, " (");
	append_number(text, sizeof text, a);
	append(text, sizeof text, ", ");
	append_number(text, sizeof text, b);
	append(text, sizeof text, "; BYSSAL_SEED ");
	append_number(text, sizeof text, run_seed());
	append(text, sizeof text, "; errno ");
	append_number(text, sizeof text, (uint64_t)error);
	append(text, sizeof text, ")\n");
	say_to(2, text);
	_exit(1);
}

#define CHECK(x) do { if (!(x)) check_failed(__FILE__, __LINE__, #x, 0, 0); } while (0)
/* The same, printing two numbers that explain the failure. */
#define CHECK2(x, a, b) \
	do { if (!(x)) check_failed(__FILE__, __LINE__, #x, (uint64_t)(a), (uint64_t)(b)); } while (0)

/* Counted as skipped by the runner. */
static MAYBE_UNUSED __attribute__((noreturn)) void skip(const char *why)
{
	say_to(1, "skipped: ");
	say_to(1, why);
	say_to(1, "\n");
	_exit(77);
}

/* ---- Owner's patterns ---------------------------------------------------------------------
 * Every byte depends on the owner's seed and on its offset, so that overlap, loss, shift and
 * stale content are all seen. The pattern of n bytes begins with the pattern of fewer.
 * (__builtin_memcpy of 8 is a plain load or store; without builtins memcpy would be a call.) */

static inline uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15u;
	return x ^ x >> 29;
}

static MAYBE_UNUSED void fill(void *block, size_t n, uint64_t seed)
{
	unsigned char *p = block;
	uint64_t word = mix(seed + 1);
	size_t i = 0;
	for (; i + 8 <= n; i += 8, word += 0x0123456789abcdefu) __builtin_memcpy(p + i, &word, 8);
	memcpy(p + i, &word, n - i);
}

/* Offset of the first wrong byte's word, or n when all is well. */
static MAYBE_UNUSED size_t wrong_at(const void *block, size_t n, uint64_t seed)
{
	const unsigned char *p = block;
	uint64_t word = mix(seed + 1), have;
	size_t i = 0;
	for (; i + 8 <= n; i += 8, word += 0x0123456789abcdefu) {
		__builtin_memcpy(&have, p + i, 8);
		if (have != word) return i;
	}
	return memcmp(p + i, &word, n - i) ? i : n;
}

#define VERIFY(p, n, seed) \
	do { \
		size_t wrong_ = wrong_at((p), (n), (seed)); \
		CHECK2(wrong_ == (size_t)(n), wrong_, (n)); \
	} while (0)

static MAYBE_UNUSED int all_zero(const void *block, size_t n)
{
	const unsigned char *p = block;
	uint64_t word;
	size_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__builtin_memcpy(&word, p + i, 8);
		if (word) return 0;
	}
	for (; i < n; i++)
		if (p[i]) return 0;
	return 1;
}

static inline int aligned(const void *p, size_t to)
{
	return ((uintptr_t)p & (to - 1)) == 0;
}

/* ---- Reproducible numbers (xorshift64*) --------------------------------------------------- */

typedef struct { uint64_t state; } Random;

/* BYSSAL_SEED in the environment chooses others: `make night` tries many. */
static inline Random random_from(uint64_t seed)
{
	Random r = { mix((seed + (run_seed() << 32)) * 2 + 1) | 1 };
	return r;
}

static inline uint64_t next_random(Random *r)
{
	uint64_t x = r->state;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	r->state = x;
	return (x * 0x2545f4914f6cdd1du) >> 8;
}

static inline size_t below(Random *r, size_t n)
{
	return (size_t)(next_random(r) % n);
}

/* Sizes as programs ask for them: mostly small, some pages, a few large, now and then zero. */
static MAYBE_UNUSED size_t random_size(Random *r)
{
	size_t kind = below(r, 1000);
	if (kind < 600) return below(r, 257);
	if (kind < 900) return below(r, 4097);
	if (kind < 985) return below(r, 40000);
	if (kind < 998) return below(r, 200000);
	return below(r, 1500000);
}

/* ---- Footprint ---------------------------------------------------------------------------- */

/* Bytes of a page of the system, which is what memory is counted in. */
static inline size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Fields of statm in bytes: mapped, resident, and of these shared (files' pages above all). */
static MAYBE_UNUSED void read_statm3(size_t value[3])
{
	char text[256];
	int saved = errno, fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	ssize_t n = read(fd, text, sizeof text - 1);
	CHECK(n > 0);
	close(fd);
	errno = saved;
	text[n] = 0;
	const char *p = text;
	size_t page = page_bytes();
	for (int i = 0; i < 3; i++) {
		value[i] = 0;
		while (*p >= '0' && *p <= '9') value[i] = value[i] * 10 + (size_t)(*p++ - '0');
		while (*p == ' ') p++;
		value[i] *= page;
	}
}

static MAYBE_UNUSED void read_statm(size_t *mapped, size_t *resident)
{
	size_t value[3];
	read_statm3(value);
	*mapped = value[0];
	*resident = value[1];
}

/* Bytes in memory that are this process's alone, as far as statm tells. */
static MAYBE_UNUSED size_t private_bytes(void)
{
	size_t value[3];
	read_statm3(value);
	return value[1] - value[2];
}

/* Bytes in memory. */
static MAYBE_UNUSED size_t resident_bytes(void)
{
	size_t mapped, resident;
	read_statm(&mapped, &resident);
	return resident;
}

/* Bytes of address space. */
static MAYBE_UNUSED size_t mapped_bytes(void)
{
	size_t mapped, resident;
	read_statm(&mapped, &resident);
	return mapped;
}

/* The most bytes that ever were in memory (VmHWM); 0 when the kernel does not tell. Unlike
 * ru_maxrss it does not count what ran here before exec. */
static MAYBE_UNUSED size_t peak_resident_bytes(void)
{
	static char text[8192];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	if (fd < 0) return 0;
	ssize_t n = read(fd, text, sizeof text - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	const char *line = strstr(text, "VmHWM:");
	return line ? (size_t)strtoull(line + 6, NULL, 10) * KB : 0;
}

/* a - b, or 0 when that is negative. */
static inline size_t over(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

/* Whether byssal's hardened preset serves: new blocks in it are clear, though as many were filled
 * and freed just before. */
static MAYBE_UNUSED int is_hardened(void)
{
	char *block[64];
	int i, j, clear = 1;
	for (i = 0; i < 64; i++) {
		CHECK(block[i] = malloc(100));
		memset(block[i], 1, 100);
	}
	for (i = 0; i < 64; i++)
		free(block[i]);
	for (i = 0; i < 64; i++) {
		CHECK(block[i] = malloc(100));
		for (j = 0; j < 100; j++)
			clear &= !((volatile char *)block[i])[j];
	}
	for (i = 0; i < 64; i++)
		free(block[i]);
	return clear;
}

/* Pages go back every 50 ms only (PURGE_PAUSE), by a free that looks at the clock: what was freed
 * just now may still wait. */
static MAYBE_UNUSED void let_pages_go(void)
{
	usleep(100000);
	for (int i = 0; i < 64; i++) {
		void *run = aligned_alloc(4096, 16384), *block = malloc(3000);
		CHECK(run && block);
		free(run);
		free(block);
	}
}

#endif
