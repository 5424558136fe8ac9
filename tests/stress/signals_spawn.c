/* All threads hand blocks around and are signalled without pause: the handler leaves by siglongjmp
 * whatever computation it interrupts, never the heap. Meanwhile some of them run other programs by
 * posix_spawn. Arguments: threads, thousands of operations of all together. */
#include "stress.h"
#include "../programs/children.h"
#include <setjmp.h>
#include <spawn.h>

extern char **environ;
static size_t threads, operations;
static atomic_size_t running;
static atomic_ulong jumps;
static __thread sigjmp_buf out;
static __thread volatile sig_atomic_t may_jump;

static void handler(int number)
{
	(void)number;
	if (!may_jump) return;
	may_jump = 0;
	siglongjmp(out, 1);
}

/* Computes on a block of the heap until it is done or a signal ends it. */
static void compute(Block *b)
{
	volatile uint64_t x = b->seed;
	if (sigsetjmp(out, 1)) {
		atomic_fetch_add(&jumps, 1);
		return;
	}
	may_jump = 1;
	for (int i = 0; i < 2000; i++) x = mix(x);
	may_jump = 0;
}

static void spawn(void)
{
	char *arguments[] = { "true", NULL };
	pid_t pid;
	CHECK(!posix_spawnp(&pid, "true", NULL, NULL, arguments, environ));
	wait_for(pid, __LINE__);
}

static void *work(void *number)
{
	uint32_t me = (uint32_t)(uintptr_t)number;
	Random r = random_from(me + 1);
	for (size_t i = 0; i < operations / threads; i++) {
		Block *b = make_block(me, &r, 1);
		if (i % 8 == 0) compute(b);
		free_block(swap_in(&r, b), me);
		if (me < 4 && i % (1 + operations / threads / 10) == 0) spawn();
	}
	atomic_fetch_sub(&running, 1);
	/* The signaller needs threads that are there. */
	while (atomic_load(&running)) usleep(1000);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread[MOST_THREADS];
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
	threads = threads_argument(argc, argv);
	operations = number_argument(argc, argv, 2) * 1000;
	CHECK(!sigaction(SIGUSR1, &action, NULL));
	atomic_store(&running, threads);
	for (size_t i = 0; i < threads; i++) start_thread(&thread[i], work, i);
	for (size_t i = 0; atomic_load(&running); i++) {
		pthread_kill(thread[i % threads], SIGUSR1);
		usleep(20);
	}
	for (size_t i = 0; i < threads; i++) CHECK(!pthread_join(thread[i], NULL));
	drain_pool(UINT32_MAX, 0, 1);
	at_rest("signals_spawn", threads);
	return 0;
}
