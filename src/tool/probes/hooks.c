/* Reaches the hooks of the allocator in the way named by the argument: threads that end by
 * return, exit, cancellation or detached; a fork while a second thread lives; or neither (none).
 * The verifier puts a trap on a hook and expects the process to die in it, or not to. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static sem_t ready;
static pid_t other;

static void *by_return(void *arg)
{
	free(malloc(100));
	return arg;
}

static void *by_exit(void *arg)
{
	free(malloc(100));
	pthread_exit(arg);
}

static void *waits(void *arg)
{
	free(malloc(100));
	sem_post(&ready);
	for (;;) pause();
	return arg;
}

static void *detached(void *arg)
{
	free(malloc(100));
	pthread_detach(pthread_self());
	other = (pid_t)syscall(SYS_gettid);
	sem_post(&ready);
	return arg;
}

static int ended(void *(*way)(void *), int cancel)
{
	pthread_t t;
	if (pthread_create(&t, 0, way, 0)) return 1;
	if (cancel) {
		sem_wait(&ready);
		if (pthread_cancel(t)) return 1;
	}
	return pthread_join(t, 0) != 0;
}

static int ended_detached(void)
{
	pthread_t t;
	if (pthread_create(&t, 0, detached, 0)) return 1;
	sem_wait(&ready);
	/* It cannot be joined, but the kernel knows when it is gone. */
	while (!syscall(SYS_tgkill, getpid(), other, 0)) usleep(1000);
	return 0;
}

static int forked(void)
{
	pthread_t t;
	int status;
	if (pthread_create(&t, 0, waits, 0)) return 1;
	sem_wait(&ready);
	pid_t pid = fork();
	if (pid < 0) return 1;
	if (!pid) {
		free(malloc(100));
		_exit(0);
	}
	return waitpid(pid, &status, 0) != pid || status;
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "none";
	sem_init(&ready, 0, 0);
	free(realloc(malloc(10), 20));
	if (!strcmp(way, "return")) return ended(by_return, 0);
	if (!strcmp(way, "exit")) return ended(by_exit, 0);
	if (!strcmp(way, "cancel")) return ended(waits, 1);
	if (!strcmp(way, "detached")) return ended_detached();
	if (!strcmp(way, "fork")) return forked();
	return strcmp(way, "none") != 0;
}
