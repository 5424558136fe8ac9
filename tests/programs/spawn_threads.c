/* vfork, posix_spawn, system and popen while threads are busy in the heap: the child shares the
 * parent's memory for a moment, and must neither disturb it nor hang. */
#include "children.h"
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>

extern char **environ;
static atomic_int stop;

static void *busy(void *seed)
{
	while (!atomic_load(&stop)) use_heap((uintptr_t)seed, 300);
	return NULL;
}

static void *spawn(void *number)
{
	uintptr_t me = (uintptr_t)number;
	for (int round = 0; round < 15; round++) {
		char *arguments[] = { "true", NULL };
		unsigned char *p = malloc(1000);
		CHECK(p);
		fill(p, 1000, me);
		pid_t pid;
		CHECK(!posix_spawnp(&pid, "true", NULL, NULL, arguments, environ));
		wait_for(pid, __LINE__);
		pid = vfork();
		if (pid == 0) _exit(0);
		wait_for(pid, __LINE__);
		pid = vfork();
		if (pid == 0) {
			execlp("true", "true", (char *)NULL);
			_exit(127);
		}
		wait_for(pid, __LINE__);
		VERIFY(p, 1000, me);
		free(p);
		use_heap(me, 50);
	}
	return NULL;
}

int main(void)
{
	pthread_t worker[3], spawner[2];
	for (uintptr_t i = 0; i < COUNT(worker); i++)
		CHECK(!pthread_create(&worker[i], NULL, busy, (void *)i));
	for (uintptr_t i = 0; i < COUNT(spawner); i++)
		CHECK(!pthread_create(&spawner[i], NULL, spawn, (void *)i));
	for (size_t i = 0; i < COUNT(spawner); i++) CHECK(!pthread_join(spawner[i], NULL));
	for (int i = 0; i < 5; i++) {
		char line[100];
		CHECK(system("exit 0") == 0);
		FILE *f = popen("echo text from a pipe", "r");
		CHECK(f && fgets(line, sizeof line, f));
		CHECK(!strcmp(line, "text from a pipe\n"));
		CHECK(pclose(f) == 0);
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < COUNT(worker); i++) CHECK(!pthread_join(worker[i], NULL));
	return 0;
}
