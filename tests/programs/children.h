/* Waiting for children that may hang. Under the runner the program then waits for its limit, so that
 * it can show the stacks of the hung child; alone, it ends. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "check.h"
#include <signal.h>
#include <sys/wait.h>

static MAYBE_UNUSED void wait_for(pid_t child, int line)
{
	int status, milliseconds = 0;
	CHECK2(child > 0, line, errno);
	for (;;) {
		pid_t pid = waitpid(child, &status, WNOHANG);
		if (pid < 0 && errno == EINTR) continue;
		CHECK2(pid == child || pid == 0, line, pid);
		if (pid == child) break;
		usleep(milliseconds < 20 ? 200 : 2000);
		milliseconds += milliseconds < 20 ? 1 : 2;
		if (milliseconds == 20000) {
			say_to(2, "child hangs: ");
			say_number(2, (uint64_t)child);
			say_to(2, "\n");
		}
		if (milliseconds > 50000) {
			while (getenv("BYSSAL_RUNNER")) pause();
			kill(child, SIGKILL);
			check_failed(__FILE__, line, "child hung", (uint64_t)child, 0);
		}
	}
	/* Signal in the first number, exit code in the second. */
	CHECK2(WIFEXITED(status) && WEXITSTATUS(status) == 0,
		WIFSIGNALED(status) ? WTERMSIG(status) : 0, WIFEXITED(status) ? WEXITSTATUS(status) : line);
}

/* Hard work for the heap, verified. */
static MAYBE_UNUSED void use_heap(uint64_t seed, size_t count)
{
	Random r = random_from(seed);
	struct { unsigned char *p; size_t n; } live[100];
	memset(live, 0, sizeof live);
	for (size_t i = 0; i < count; i++) {
		size_t slot = below(&r, COUNT(live));
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, slot);
		free(live[slot].p);
		live[slot].n = random_size(&r);
		CHECK(live[slot].p = i % 5 ? malloc(live[slot].n) : calloc(live[slot].n, 1));
		if (i % 5 == 0) CHECK(all_zero(live[slot].p, live[slot].n));
		fill(live[slot].p, live[slot].n, slot);
	}
	for (size_t slot = 0; slot < COUNT(live); slot++) {
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, slot);
		free(live[slot].p);
	}
}

#endif
