/* What the misuse programs share. Each prints "armed" and then does one wrong thing; the process
 * must then die by a trap, at the latest when it exits. Arguments: block size, and "cold" for a
 * block alone in its class (without it: live neighbours and holes). */
#ifndef MISUSE_H
#define MISUSE_H

#include "../programs/check.h"
#include <signal.h>
#include <ucontext.h>

enum { NEIGHBOURS = 48, OTHERS = 64 };
static size_t size = 100;
static char *neighbour[NEIGHBOURS], *other[OTHERS];

/* The block that is going to be misused. */
static MAYBE_UNUSED char *victim(int argc, char **argv)
{
	if (argc > 1) size = strtoull(argv[1], NULL, 10);
	int warm = !(argc > 2 && !strcmp(argv[2], "cold"));
	char *p = NULL;
	for (int i = 0; i < OTHERS; i++) {
		CHECK(other[i] = malloc(16 + (size_t)i % 8 * 40));
		memset(other[i], 1, 16);
	}
	for (int i = 0; warm && i < NEIGHBOURS; i++) {
		CHECK(neighbour[i] = malloc(size));
		memset(neighbour[i], i, size);
		if (i == NEIGHBOURS / 2) CHECK(p = malloc(size));
	}
	if (!p) CHECK(p = malloc(size));
	memset(p, 0x11, size);
	for (int i = 0; warm && i < NEIGHBOURS; i += 3) {
		free(neighbour[i]);
		neighbour[i] = NULL;
	}
	return p;
}

#if defined __x86_64__
#define FIRST_WORD(context) ((uint64_t)(context)->uc_mcontext.gregs[REG_RDI])
#define TRAP SIGILL
#elif defined __aarch64__
#define FIRST_WORD(context) ((uint64_t)(context)->uc_mcontext.regs[0])
#define TRAP SIGTRAP
#endif

#ifdef TRAP
/* byssal's trap has the fault's number in a register: tell it, then die of the same trap. */
static void tell_fault(int number, siginfo_t *info, void *context)
{
	(void)info;
	say_to(1, "fault ");
	say_number(1, FIRST_WORD((ucontext_t *)context));
	say_to(1, "\n");
	signal(number, SIG_DFL);
}
#endif

/* From here on the process is expected to die. */
static MAYBE_UNUSED void arm(void)
{
#ifdef TRAP
	struct sigaction action = { .sa_sigaction = tell_fault, .sa_flags = SA_SIGINFO };
	sigaction(TRAP, &action, NULL);
#endif
	say_to(1, "armed\n");
}

/* A check may be late by a few frees; none of these can be handed out again in between. */
static MAYBE_UNUSED void more_frees(void)
{
	for (int i = 0; i < OTHERS; i++) {
		free(other[i]);
		other[i] = NULL;
	}
	for (int i = 0; i < NEIGHBOURS; i++) {
		free(neighbour[i]);
		neighbour[i] = NULL;
	}
}

/* The compiler must not see where a pointer comes from. */
static MAYBE_UNUSED void *hide(void *p)
{
	void *volatile hidden = p;
	return hidden;
}

#endif
