/* Threads that allocate and free without an end, for looks in the middle of it.
 *
 *     busy THREADS [fork|vfork]  fork: and the first thread forks, again and again
 *                                vfork: and it waits in vfork for a child that sleeps for long
 */
#include "../programs/check.h"
#include <stdio.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void *volatile exchange[256];

static void *work(void *number)
{
	unsigned seed = (unsigned)(uintptr_t)number;
	for (;;) {
		seed = seed * 1103515245u + 12345u;
		void *block = malloc(seed >> 8 & 4095);
		void *other = __atomic_exchange_n(&exchange[seed >> 24], block, __ATOMIC_ACQ_REL);
		free(other);
	}
	return 0;
}

int main(int argc, char **argv)
{
	CHECK(argc > 1);
	for (int i = 0; i < atoi(argv[1]); i++) {
		pthread_t thread;
		CHECK(pthread_create(&thread, 0, work, (void *)(uintptr_t)(i + 1)) == 0);
	}
	CHECK(write(1, "ready\n", 6) == 6);
	if (argc > 2 && strcmp(argv[2], "vfork") == 0) {
		pid_t child = vfork();
		CHECK(child >= 0);
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			sleep(60);
			_exit(0);
		}
		CHECK(waitpid(child, 0, 0) == child);
		pause();
	}
	while (argc > 2) {
		pid_t child = fork();
		CHECK(child >= 0);
		if (child == 0) {
			for (int i = 0; i < 100; i++) free(malloc((size_t)i * 20));
			usleep(2000);
			_exit(0);
		}
		CHECK(waitpid(child, 0, 0) == child);
	}
	pause();
}
