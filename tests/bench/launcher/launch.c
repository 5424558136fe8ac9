/* Starts a program and tells what it cost: launch RESULT SECONDS PROGRAM [ARGUMENT...]
 *
 * Tiny and static, because the kernel counts the peak memory of a process from before its exec:
 * started from something large, every program would seem at least as large. Writes to the file
 * RESULT: status (exit code, 128 + signal, or -1 after SECONDS), wall, user and system time in
 * microseconds, peak memory in KiB, minor and major faults, all of the program and of the
 * children that it waited for. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile pid_t child;
static volatile sig_atomic_t late;

static void stop(int signal)
{
	(void)signal;
	late = 1;
	kill(-child, SIGKILL);
}

static long long microseconds(struct timeval t)
{
	return t.tv_sec * 1000000LL + t.tv_usec;
}

int main(int argc, char **argv)
{
	if (argc < 4) return 125;
	int result = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (result < 0) return 125;
	struct timespec begin, end;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	child = fork();
	if (child < 0) return 125;
	if (!child) {
		setpgid(0, 0);
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	setpgid(child, child);
	struct sigaction action = { .sa_handler = stop };
	sigaction(SIGALRM, &action, 0);
	alarm((unsigned)atoi(argv[2]));
	int status;
	struct rusage use;
	while (wait4(child, &status, 0, &use) < 0)
		if (errno != EINTR) return 125;
	clock_gettime(CLOCK_MONOTONIC, &end);
	/* What it left behind must not disturb the next one. */
	kill(-child, SIGKILL);
	int code = late ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	long long wall = (end.tv_sec - begin.tv_sec) * 1000000LL
		+ (end.tv_nsec - begin.tv_nsec) / 1000;
	dprintf(result, "%d %lld %lld %lld %ld %ld %ld\n", code, wall, microseconds(use.ru_utime),
		microseconds(use.ru_stime), use.ru_maxrss, use.ru_minflt, use.ru_majflt);
	return 0;
}
