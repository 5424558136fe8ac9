/* A handler of a signal calls exit in the middle of a malloc or free. POSIX promises nothing then, and
 * programs do it; what exit looks at must not be taken for damage. */
#include "check.h"
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>

static void leave(int signal)
{
	(void)signal;
	exit(0);
}

static void work(unsigned round)
{
	void *held[64] = {0};
	/* Of a few classes, so that queues are short of slots, full, and in between. */
	size_t most = round % 2 ? 40 : 2000;
	struct itimerval soon = {.it_value.tv_usec = 200 + round * 37 % 1500};
	CHECK(signal(SIGALRM, leave) != SIG_ERR);
	CHECK(!setitimer(ITIMER_REAL, &soon, NULL));
	for (unsigned random = round;;) {
		random = random * 1103515245 + 12345;
		void **place = &held[round % 3 ? random >> 26 : 0];
		size_t n = 1 + (random >> 8) % most;
		free(*place);
		CHECK(*place = malloc(n));
		memset(*place, 'A', n);
	}
}

int main(void)
{
	/* One in a hundred finds the call at any two instructions. */
	for (unsigned round = 0; round < 1500; round++) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (!child) work(round);
		int status;
		CHECK(waitpid(child, &status, 0) == child);
		CHECK2(WIFEXITED(status) && !WEXITSTATUS(status), round, status);
	}
	return 0;
}
