/* What the misuse programs share. Each does one wrong thing and then goes on for a while; an
 * allocator that sees it stops the process.
 *
 *     PROGRAM [SIZE [cold|warm [VARIANT]]]     one trial: prints "armed", then does it
 *
 * SIZE is the block's, "cold" a block alone in the heap; otherwise it has live neighbours, and
 * every class has blocks and holes. With MISUSE_TRIALS=N in the environment the program starts
 * itself N times instead and prints a line of numbers for each, see run_trials. Nothing here uses
 * the heap but for the trial itself. */
#ifndef MISUSE_H
#define MISUSE_H

#include "../programs/check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>

/* What a trial is about to do: the runner knows these numbers. */
enum stage {
	START,  /* nothing wrong yet */
	ACCESS, /* the wrong read or write */
	CALL,   /* the wrong call */
	FREE,   /* the free of a block that was damaged */
	LATER,  /* calls that have nothing to do with it */
	REUSE,  /* calls until the block's memory is handed out again */
	EXIT    /* exit */
};

/* What a trial that was not stopped saw. */
enum saw {
	NOTHING,
	ZEROS,        /* nothing but zeros, or */
	FILLED,       /* one other byte everywhere */
	STOPS,        /* a zero right behind the string */
	OTHER_DATA,   /* neither, nor what the program wrote */
	SHOWN,        /* bytes behind the string, */
	SHOWN_ALIKE,  /* the very bytes that stand behind another block, too */
	OLD_DATA,     /* what the program wrote */
	REUSED, NEVER_REUSED, CHANGED,
	HARMLESS      /* what it wrote stood there before */
};

/* What a trial leaves behind, in memory that outlives it. */
struct report {
	uint32_t stage, count, saw;
	uint32_t signal, code, instruction;
	uint64_t fault, address, value;
	uint32_t trial;
};

/* A program that hung so often (for five seconds) is tried no more. */
enum { HANGS = 3 };
enum { REPORT_FD = 100, STDERR_FD = 101, NEIGHBOURS = 48, LARGE_NEIGHBOURS = 8, PAIRS = 64 };
static size_t size = 100;
static long variant;
static int warm = 1;
static size_t neighbours;
static char *neighbour[NEIGHBOURS];
static struct report here, *report = &here;

static MAYBE_UNUSED void at(enum stage stage)
{
	*(volatile uint32_t *)&report->stage = stage;
	*(volatile uint32_t *)&report->count = 0;
}

static MAYBE_UNUSED void saw(enum saw what)
{
	*(volatile uint32_t *)&report->saw = what;
}

/* The compiler must not see where a pointer comes from. */
static MAYBE_UNUSED void *hide(void *p)
{
	void *volatile hidden = p;
	return hidden;
}

/* ---- How it ends --------------------------------------------------------------------------- */

#if defined __x86_64__
#define FIRST_WORD(context) ((uint64_t)(context)->uc_mcontext.gregs[REG_RDI])
#define COUNTER(context) ((unsigned char *)(context)->uc_mcontext.gregs[REG_RIP])
#elif defined __aarch64__
#define FIRST_WORD(context) ((uint64_t)(context)->uc_mcontext.regs[0])
#define COUNTER(context) ((unsigned char *)(context)->uc_mcontext.pc)
#endif

/* Copies memory that may be unreadable, through a pipe. */
static int peek(void *to, const void *from, size_t n)
{
	int ends[2], done = 0;
	if (pipe(ends)) return 0;
	if (write(ends[1], from, n) == (ssize_t)n) done = read(ends[0], to, n) == (ssize_t)n;
	close(ends[0]);
	close(ends[1]);
	return done;
}

/* byssal's trap has the fault's number in a register. Tells it, then dies of the same signal. */
static void tell_fault(int number, siginfo_t *info, void *context)
{
	report->signal = (uint32_t)number;
	report->code = (uint32_t)info->si_code;
	report->address = (uint64_t)(uintptr_t)info->si_addr;
#ifdef FIRST_WORD
	report->fault = FIRST_WORD((ucontext_t *)context);
	unsigned char bytes[4] = { 0 };
	if (number != SIGABRT && peek(bytes, COUNTER((ucontext_t *)context), sizeof bytes))
		memcpy(&report->instruction, bytes, sizeof bytes);
	if (report == &here && (number == SIGILL || number == SIGTRAP)) {
		say_to(1, "fault ");
		say_number(1, report->fault);
		say_to(1, "\n");
	}
#endif
	signal(number, SIG_DFL);
	if (number == SIGABRT) raise(number);
}

static void tell_faults(void)
{
	static const int deaths[] = { SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT };
	struct sigaction action = { .sa_sigaction = tell_fault, .sa_flags = SA_SIGINFO };
	for (size_t i = 0; i < COUNT(deaths); i++) sigaction(deaths[i], &action, NULL);
}

/* ---- Many trials --------------------------------------------------------------------------- */

/* Runs the program anew (a new layout, new secrets) for each trial and prints: stage, count,
 * saw, exit code, signal, si_code, instruction, fault, address, value, bytes on stderr. */
static void run_trials(char **argv, unsigned trials, char **setting)
{
	int fd = memfd_create("report", 0), err = memfd_create("stderr", 0);
	CHECK(fd >= 0 && err >= 0 && !ftruncate(fd, sizeof *report));
	CHECK(dup2(fd, REPORT_FD) >= 0 && dup2(err, STDERR_FD) >= 0);
	report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED, REPORT_FD, 0);
	CHECK(report != MAP_FAILED);
	char trial[] = "MISUSE_REPORT=";
	*setting = trial;
	for (unsigned i = 0, hung = 0; i < trials && hung < HANGS; i++) {
		int status;
		memset(report, 0, sizeof *report);
		report->trial = i;
		CHECK(!ftruncate(STDERR_FD, 0) && lseek(STDERR_FD, 0, SEEK_SET) == 0);
		pid_t child = vfork();
		CHECK(child >= 0);
		if (!child) {
			dup2(STDERR_FD, 2);
			alarm(5);
			execve(argv[0], argv, environ);
			_exit(127);
		}
		CHECK(waitpid(child, &status, 0) == child);
		hung += WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
		uint64_t words[] = { report->stage, report->count, report->saw,
			WIFEXITED(status) ? (uint64_t)WEXITSTATUS(status) : 0,
			WIFSIGNALED(status) ? (uint64_t)WTERMSIG(status) : 0, report->code,
			report->instruction, report->fault, report->address, report->value,
			(uint64_t)lseek(STDERR_FD, 0, SEEK_END) };
		char line[300] = "trial";
		for (size_t k = 0; k < COUNT(words); k++) {
			append(line, sizeof line, " ");
			append_number(line, sizeof line, words[k]);
		}
		append(line, sizeof line, "\n");
		say_to(1, line);
	}
	/* What the last one said, for whoever wants to know. */
	char text[400];
	ssize_t n = pread(STDERR_FD, text, sizeof text, 0);
	if (n > 0) CHECK(write(1, text, (size_t)n) == n);
	_exit(0);
}

static void begin(int argc, char **argv)
{
	for (char **setting = environ; *setting; setting++) {
		if (!strncmp(*setting, "MISUSE_TRIALS=", 14))
			run_trials(argv, (unsigned)strtoul(*setting + 14, NULL, 10), setting);
		if (!strncmp(*setting, "MISUSE_REPORT=", 14))
			report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED,
				REPORT_FD, 0);
	}
	CHECK(report != MAP_FAILED);
	if (argc > 1) size = strtoull(argv[1], NULL, 10);
	if (argc > 2) warm = strcmp(argv[2], "cold") != 0;
	if (argc > 3) variant = strtol(argv[3], NULL, 10);
}

/* ---- The block that is misused ------------------------------------------------------------- */

/* A live block's bytes; of a large one only some, as the time goes into pages. */
static MAYBE_UNUSED void touch(char *p, int byte)
{
	if (size <= 64 * KB) {
		memset(p, byte, size);
		return;
	}
	memset(p, byte, 64);
	memset(p + size - 64, byte, 64);
}

/* Blocks and holes in every class. */
static void warm_classes(void)
{
	for (size_t n = 8; n < 100000; n += n / 6 + 8) {
		char *block[5];
		for (size_t i = 0; i < COUNT(block); i++) {
			CHECK(block[i] = malloc(n));
			block[i][0] = block[i][n - 1] = 1;
		}
		free(block[1]);
		free(block[3]);
	}
}

/* The block that is going to be misused; its place among the neighbours depends on the trial. */
static MAYBE_UNUSED char *victim(int argc, char **argv)
{
	char *p = NULL;
	begin(argc, argv);
	if (warm) {
		warm_classes();
		neighbours = size > 64 * KB ? LARGE_NEIGHBOURS : NEIGHBOURS;
		for (size_t i = 0; i < neighbours; i++) {
			CHECK(neighbour[i] = malloc(size));
			touch(neighbour[i], 0x22);
			if (i == (report->trial + neighbours / 2) % neighbours) CHECK(p = malloc(size));
		}
	}
	if (!p) CHECK(p = malloc(size));
	touch(p, 0x11);
	for (size_t i = 0; i < neighbours; i += 3) {
		free(neighbour[i]);
		neighbour[i] = NULL;
	}
	return p;
}

/* From here on the process may be stopped: the next thing is the misuse. */
static MAYBE_UNUSED void arm(enum stage stage)
{
	tell_faults();
	if (report == &here) say_to(1, "armed\n");
	at(stage);
}

/* ---- What comes after ---------------------------------------------------------------------- */

static MAYBE_UNUSED void free_neighbours(void)
{
	for (size_t i = 0; i < neighbours; i++) {
		free(neighbour[i]);
		neighbour[i] = NULL;
	}
}

/* Blocks of the same class come and go. */
static MAYBE_UNUSED void pairs(void)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		free(hide(malloc(size)));
		report->count++;
	}
}

static MAYBE_UNUSED __attribute__((noreturn)) void leave(void)
{
	at(EXIT);
	exit(0);
}

/* The program goes on, frees what it has, and ends. */
static MAYBE_UNUSED __attribute__((noreturn)) void finish(void)
{
	at(LATER);
	pairs();
	free_neighbours();
	pairs();
	leave();
}

/* Writes one byte, `place` bytes from the start of the block at p, frees the block, and goes on. */
static MAYBE_UNUSED __attribute__((noreturn)) void write_one(char *p, ptrdiff_t place)
{
	arm(ACCESS);
	*((volatile char *)hide(p) + place) = 'A';
	at(FREE);
	free(hide(p));
	finish();
}

/* Allocates until memory of [p, p + size) is handed out again; that block, or null. The first
 * blocks stay: the holes before p in a list fill up. The later ones come and go. */
static MAYBE_UNUSED char *reuse(char *p)
{
	unsigned held = size > 64 * KB ? 16 : 200, most = size > 64 * KB ? 300 : 20000;
	at(REUSE);
	for (unsigned i = 0; i < most; i++) {
		char *q = malloc(size);
		CHECK(q);
		report->count++;
		if (q < p + size && p < q + size) return q;
		if (i >= held) free(hide(q));
	}
	return NULL;
}

/* What stands in memory that the program has filled with 0x11. */
static MAYBE_UNUSED enum saw look(const char *p, size_t n)
{
	size_t alike = 0, old = 0;
	char first = n ? *(const volatile char *)p : 0;
	for (size_t i = 0; i < n; i++) {
		char byte = ((const volatile char *)p)[i];
		alike += byte == first;
		old += byte == 0x11;
	}
	return old >= (n < 8 ? n - n / 2 : 4) ? OLD_DATA : alike < n ? OTHER_DATA : first ? FILLED : ZEROS;
}

/* ---- Another thread ------------------------------------------------------------------------ */

static MAYBE_UNUSED void *release(void *p)
{
	free(p);
	return NULL;
}

static MAYBE_UNUSED void free_elsewhere(void *p)
{
	pthread_t thread;
	CHECK(!pthread_create(&thread, NULL, release, hide(p)));
	CHECK(!pthread_join(thread, NULL));
}

#endif
