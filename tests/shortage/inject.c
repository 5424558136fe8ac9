/* Runs a program many times, and each time has other calls for memory refused, as a kernel short
 * of memory or of mappings would. The program says when to begin and to end (shortage.h); what
 * libc does before and after is left alone, what it does in between (threads' stacks) is not.
 *
 *   inject NAME SAMPLES PROGRAM ARGUMENT...
 *
 * First a run without refusals counts the calls. Then, for each n (SAMPLES of them, evenly spread,
 * where there are more): the n-th call fails with ENOMEM; with EAGAIN; it and the
 * next; it and all later ones; and for each kind of call alone: from its n-th on, all. Last, a
 * kernel without the call: each of madvise and mremap always ENOSYS.
 * Every run must exit with 0. One line for each plan; exit 1 if a run failed, 77 if skipped.
 *
 * By ptrace: a seccomp filter stops the program at calls for memory only. A refused call does not
 * run; a refused brk answers with the break as it is, which is how Linux refuses. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
int main(void)
{
	puts("skipped: refusing calls by ptrace is written for x86_64 only");
	return 77;
}
#else

#define MARK 0x5ca1ab1e000u
enum { KINDS = 6, LIMIT_SECONDS = 60 };
static const int number[KINDS] = {
	SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_brk
};
static const char *const name[KINDS] = { "mmap", "munmap", "mprotect", "madvise", "mremap", "brk" };

/* Calls of the kinds in the mask `only` are refused after `skip` granted ones, `refuse` of them. */
struct plan { unsigned only; long skip, refuse; int error; };
struct sums { long runs, failed, calls[KINDS], refused[KINDS], nulls, short_runs; };

static volatile sig_atomic_t late;
static pid_t program;
static const char *title;

static void too_late(int unused)
{
	(void)unused;
	late = 1;
	kill(program, SIGKILL);
}

static void start(char **argv)
{
	struct sock_filter filter[KINDS + 3];
	int n = 0;
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		offsetof(struct seccomp_data, nr));
	for (int k = 0; k < KINDS; k++, n++)
		filter[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number[k],
			(unsigned char)(KINDS - k), 0);
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	struct sock_fprog code = { (unsigned short)n, filter };
	if (ptrace(PTRACE_TRACEME, 0, 0, 0)) _exit(77);
	raise(SIGSTOP);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &code))
		_exit(77);
	execv(argv[0], argv);
	_exit(127);
}

static int armed;

/* A thread stands before a call for memory: shall it be refused? */
static void judge(pid_t thread, struct plan *plan, struct sums *sums)
{
	struct user_regs_struct regs;
	if (ptrace(PTRACE_GETREGS, thread, 0, &regs)) return;
	int kind = 0;
	while (kind < KINDS && number[kind] != (int)regs.orig_rax) kind++;
	if (kind == KINDS) return;
	if (regs.orig_rax == SYS_madvise && regs.rdi == MARK) {
		armed = regs.rdx == 1;
		if (!armed && regs.rsi) {
			sums->nulls += (long)regs.rsi;
			sums->short_runs++;
		}
		return;
	}
	/* Asking where the break is asks for nothing. */
	if (!armed || (regs.orig_rax == SYS_brk && !regs.rdi)) return;
	sums->calls[kind]++;
	if (!(plan->only & 1u << kind) || plan->refuse == 0) return;
	if (plan->skip > 0) {
		plan->skip--;
		return;
	}
	plan->refuse--;
	sums->refused[kind]++;
	if (regs.orig_rax == SYS_brk) {
		regs.rdi = 0;
	} else {
		regs.orig_rax = (unsigned long)-1;
		regs.rax = (unsigned long)-plan->error;
	}
	ptrace(PTRACE_SETREGS, thread, 0, &regs);
}

/* One run; the status that the program ended with, or -1 when it hung. */
static int attempt(char **argv, struct plan plan, struct sums *sums)
{
	int status, end = -1;
	late = armed = 0;
	program = fork();
	if (program < 0) return -1;
	if (!program) start(argv);
	waitpid(program, &status, __WALL);
	if (WIFEXITED(status)) return status;
	ptrace(PTRACE_SETOPTIONS, program, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP |
		PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC);
	ptrace(PTRACE_CONT, program, 0, 0);
	alarm(LIMIT_SECONDS);
	for (;;) {
		pid_t thread = waitpid(-1, &status, __WALL);
		if (thread < 0 && errno == EINTR) continue;
		if (thread < 0) break;
		if (!WIFSTOPPED(status)) {
			if (thread == program) end = status;
			continue;
		}
		int event = status >> 16, signal = WSTOPSIG(status);
		if (event == PTRACE_EVENT_SECCOMP) judge(thread, &plan, sums);
		if (event || signal == SIGSTOP || signal == SIGTRAP) signal = 0;
		ptrace(PTRACE_CONT, thread, 0, signal);
	}
	alarm(0);
	sums->runs++;
	return late ? -1 : end;
}

static void report(const char *how, const struct sums *sums)
{
	long refused = 0;
	for (int k = 0; k < KINDS; k++) refused += sums->refused[k];
	printf("%s: %s: %ld runs, refused %ld (", title, how, sums->runs, refused);
	const char *comma = "";
	for (int k = 0; k < KINDS; k++) {
		if (!sums->refused[k]) continue;
		printf("%s%s %ld", comma, name[k], sums->refused[k]);
		comma = ", ";
	}
	printf("), null in %ld runs, %ld failed\n", sums->short_runs, sums->failed);
	fflush(stdout);
}

/* All runs of a plan, from each of `count` calls on. */
static long exhaust(char **argv, const char *how, struct plan plan, long count, long samples)
{
	struct sums sums = { 0 };
	long runs = count < samples ? count : samples;
	for (long run = 0; run < runs; run++) {
		plan.skip = run * count / runs;
		int end = attempt(argv, plan, &sums);
		if (end == 0) continue;
		if (sums.failed++ < 3) {
			printf("FAILED: %s: %s, from call %ld on: ", title, how, plan.skip);
			if (end == -1) puts("hung");
			else if (WIFSIGNALED(end)) printf("signal %d\n", WTERMSIG(end));
			else printf("exit %d\n", WEXITSTATUS(end));
		}
	}
	if (runs) report(how, &sums);
	return sums.failed;
}

int main(int argc, char **argv)
{
	long failed = 0, all = 0;
	if (argc < 4) return 2;
	title = argv[1];
	long samples = atol(argv[2]);
	argv += 3;
	struct sigaction action = { .sa_handler = too_late };
	sigaction(SIGALRM, &action, 0);
	struct sums count = { 0 };
	int end = attempt(argv, (struct plan){ 0 }, &count);
	if (WIFEXITED(end) && WEXITSTATUS(end) == 77) {
		puts("skipped: no ptrace or no system call filters here");
		return 77;
	}
	for (int k = 0; k < KINDS; k++) all += count.calls[k];
	if (end || !all) {
		printf("FAILED: %s: without refusals: status %d, %ld calls\n", title, end, all);
		return 1;
	}
	const unsigned any = (1u << KINDS) - 1;
	failed += exhaust(argv, "one", (struct plan){ any, 0, 1, ENOMEM }, all, samples);
	failed += exhaust(argv, "one, EAGAIN", (struct plan){ any, 0, 1, EAGAIN }, all, samples);
	failed += exhaust(argv, "two", (struct plan){ any, 0, 2, ENOMEM }, all, samples);
	failed += exhaust(argv, "all from", (struct plan){ any, 0, -1, ENOMEM }, all, samples);
	for (int k = 0; k < KINDS; k++) {
		char how[40];
		snprintf(how, sizeof how, "every %s", name[k]);
		struct plan plan = { 1u << k, 0, -1, ENOMEM };
		failed += exhaust(argv, how, plan, count.calls[k], samples);
		if (number[k] != SYS_madvise && number[k] != SYS_mremap) continue;
		snprintf(how, sizeof how, "no %s, ENOSYS", name[k]);
		plan.error = ENOSYS;
		failed += exhaust(argv, how, plan, count.calls[k] > 0, 1);
	}
	return failed ? 1 : 0;
}
#endif
