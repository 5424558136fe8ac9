/* A sandboxed worker: from some moment on a filter (seccomp) knows only the system calls that
 * musl's own malloc needs. Arguments:
 * malloc:     anything else kills; malloc and free must do without it;
 * realloc:    the same with mremap, which a realloc that grows may call;
 * CALL ERROR: one call (mremap, madvise, clock_gettime, mprotect, getrandom, all five) answers EPERM
 * or ENOSYS;
 * clock:      nothing tells the time, not the vdso (in musl) nor the call: pages go back all the same.
 * Contents stay right, memory of calloc is zero, nothing is null. */
#include "check.h"
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* The kernel's interface; musl's compiler wrapper does not see the kernel's headers. */
struct filter { uint16_t code; uint8_t yes, no; uint32_t k; };
struct program { unsigned short count; struct filter *filter; };
enum { LOAD = 0x20, EQUAL = 0x15, RETURN = 0x06, NUMBER = 0, ARGUMENT = 16 };
enum { ALLOW = 0x7fff0000, FAIL = 0x00050000, TRAP = 0x00030000, MODE_FILTER = 2 };
#define LOW (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 4)
enum { ADVICE_FREE = 8 };

/* What musl calls where both are. */
#ifdef SYS_mmap2
#define MMAP SYS_mmap2
#else
#define MMAP SYS_mmap
#endif
/* Newer names first: musl calls both on 32-bit systems. */
#ifdef SYS_clock_gettime64
#define CLOCK64 SYS_clock_gettime64
#endif
#if defined SYS_clock_gettime
#define CLOCK SYS_clock_gettime
#elif defined SYS_clock_gettime32
#define CLOCK SYS_clock_gettime32
#else
#define CLOCK SYS_clock_gettime64
#endif
#ifndef CLOCK64
#define CLOCK64 CLOCK
#endif

static void install(struct filter *filter, size_t length)
{
	struct program program = { (unsigned short)length, filter };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, MODE_FILTER, &program))
		skip("no system call filters (seccomp) here");
}

static void tell(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	check_failed(__FILE__, __LINE__, "system call outside the sandbox", (uint64_t)info->si_syscall, 0);
}

/* Only what mallocng needs, mremap if `more`; and what the hardened preset draws keys by now and
 * then, which the default one has no code for. */
static void allow_few(int more)
{
	static const int base[] = {
		SYS_read, SYS_write, SYS_writev, SYS_exit, SYS_exit_group, SYS_brk, MMAP, SYS_munmap,
		SYS_futex, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_getrandom,
#if defined __x86_64__ && defined __ILP32__
		/* There musl asks for the time by the call, not by the vdso. */
		CLOCK,
#endif
		SYS_mremap,
	};
	struct filter filter[2 * COUNT(base) + 8];
	size_t n = 0;
	filter[n++] = (struct filter){ LOAD, 0, 0, NUMBER };
	for (size_t i = 0; i < COUNT(base) - !more; i++) {
		filter[n++] = (struct filter){ EQUAL, 0, 1, (uint32_t)base[i] };
		filter[n++] = (struct filter){ RETURN, 0, 0, ALLOW };
	}
	/* Of the advice, what gives pages back. */
	filter[n++] = (struct filter){ EQUAL, 0, 4, SYS_madvise };
	filter[n++] = (struct filter){ LOAD, 0, 0, ARGUMENT + 2 * 8 + LOW };
	filter[n++] = (struct filter){ EQUAL, 1, 0, MADV_DONTNEED };
	filter[n++] = (struct filter){ EQUAL, 0, 1, ADVICE_FREE };
	filter[n++] = (struct filter){ RETURN, 0, 0, ALLOW };
	filter[n++] = (struct filter){ RETURN, 0, 0, TRAP };
	struct sigaction action = { .sa_sigaction = tell, .sa_flags = SA_SIGINFO };
	CHECK(!sigaction(SIGSYS, &action, NULL));
	install(filter, n);
}

static void refuse(const char *call, int error)
{
	static const struct { const char *name; int number[2]; } known[] = {
		{ "mremap", { SYS_mremap, SYS_mremap } },
		{ "madvise", { SYS_madvise, SYS_madvise } },
		{ "clock_gettime", { CLOCK, CLOCK64 } },
		{ "mprotect", { SYS_mprotect, SYS_mprotect } },
		{ "getrandom", { SYS_getrandom, SYS_getrandom } },
	};
	struct filter filter[4 * COUNT(known) + 2];
	size_t n = 0;
	filter[n++] = (struct filter){ LOAD, 0, 0, NUMBER };
	for (size_t i = 0; i < COUNT(known); i++) {
		if (strcmp(call, "all") && strcmp(call, known[i].name)) continue;
		for (int k = 0; k < 2; k++) {
			filter[n++] = (struct filter){ EQUAL, 0, 1, (uint32_t)known[i].number[k] };
			filter[n++] = (struct filter){ RETURN, 0, 0, FAIL | (uint32_t)error };
		}
	}
	CHECK(n > 1);
	filter[n++] = (struct filter){ RETURN, 0, 0, ALLOW };
	install(filter, n);
}

/* ---- The work ----------------------------------------------------------------------------- */

enum { BLOCKS = 3000, ROUNDS = 30000 };
static struct { unsigned char *p; size_t n; } block[BLOCKS];

static size_t some_size(Random *r)
{
	size_t kind = below(r, 10000);
	if (kind < 8000) return 1 + below(r, KB);
	if (kind < 9800) return KB + below(r, 20 * KB);
	return kind < 9998 ? KB + below(r, 299 * KB) : 6 * MB;
}

static void replace(Random *r, size_t i, size_t n)
{
	VERIFY(block[i].p, block[i].n, i);
	free(block[i].p);
	int cleared = below(r, 4) == 0;
	block[i].p = cleared ? calloc(1, n) : malloc(n);
	CHECK2(block[i].p, n, errno);
	if (cleared) CHECK2(all_zero(block[i].p, n), i, n);
	block[i].n = n;
	fill(block[i].p, n, i);
}

static void grow(size_t i, size_t n)
{
	unsigned char *p = realloc(block[i].p, n);
	CHECK2(p, n, errno);
	VERIFY(p, block[i].n, i);
	fill(p, n, i);
	block[i].p = p;
	block[i].n = n;
}

static void work(int resizes)
{
	Random r = random_from(13);
	for (size_t round = 0; round < ROUNDS; round++) {
		size_t i = below(&r, BLOCKS);
		if (resizes && below(&r, 8) == 0 && block[i].n < MB)
			grow(i, block[i].n + 1 + below(&r, block[i].n + KB));
		else
			replace(&r, i, some_size(&r));
	}
	/* Each of 6 MiB after the other, and one that is made longer many times. */
	for (size_t i = 0; i < 8; i++) {
		replace(&r, 0, 6 * MB);
		replace(&r, 0, 1);
	}
	for (size_t i = 1; resizes && i < 30; i++) grow(0, 200000 * i);
	/* The hardened preset draws a new key in between. */
	for (size_t i = 0; i < 120000; i++) replace(&r, 1, 1 + i % 100);
	for (size_t i = 0; i < BLOCKS; i++) VERIFY(block[i].p, block[i].n, i);
	for (size_t i = 0; i < BLOCKS; i++) free(block[i].p);
}

/* ---- Without a clock ---------------------------------------------------------------------- */

extern char **environ;

/* libc finds no vdso any more, if it has not looked for it yet: musl's. */
static void hide_vdso(void)
{
	char **end = environ;
	while (*end) end++;
	for (unsigned long *aux = (unsigned long *)(end + 1); *aux != AT_NULL; aux += 2)
		if (*aux == AT_SYSINFO_EHDR) *aux = AT_IGNORE;
}

/* Less than half of what was in use is freed, here and there: then pages go back by time only. */
static void pages_return(void)
{
	enum { RUNS = 6000, RUN = 16000 };
	/* So many in a row are freed or stay that whole pages are free; longer ones are lost at the ends
	 * of a row. */
	const size_t row = page_bytes() > 4096 ? page_bytes() / 1024 : 1;
	static unsigned char *run[RUNS];
	for (size_t i = 0; i < RUNS; i++) {
		CHECK(run[i] = malloc(RUN));
		fill(run[i], RUN, i);
	}
	size_t before = resident_bytes();
	for (size_t i = 0; i < RUNS; i++) {
		/* Beside a libc that found the vdso at its start, time has to go by. */
		if (i % 50 == 0) usleep(10000);
		if (i / row % 5 < 2) free(run[i]);
	}
	for (size_t i = 0; i < 2000; i++) {
		void *large = malloc(400 * KB), *small = malloc(3000);
		CHECK(large && small);
		free(large);
		free(small);
	}
	size_t after = resident_bytes();
	CHECK2(over(before, after) > (size_t)RUNS * RUN / 5, before, after);
	for (size_t i = 0; i < RUNS; i++)
		if (i / row % 5 >= 2) VERIFY(run[i], RUN, i);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "malloc";
	int clock = !strcmp(how, "clock"), few = !strcmp(how, "malloc"), resizes = !few;
	if (clock) hide_vdso();
	for (size_t i = 0; i < BLOCKS; i++) block[i].n = 0;
	CHECK(block[0].p = malloc(1));
	if (few || !strcmp(how, "realloc"))
		allow_few(resizes);
	else if (clock)
		refuse("clock_gettime", EPERM);
	else
		refuse(how, argc > 2 && !strcmp(argv[2], "ENOSYS") ? ENOSYS : EPERM);
	if (clock)
		pages_return();
	else
		work(resizes);
	return 0;
}
