/* A timer interrupts allocation loops thousands of times; its handler runs on a stack that came
 * from malloc, does not allocate, and now and then jumps out of code that is not in the heap. */
#include "check.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t ticks, jumps, may_jump;
static sigjmp_buf out;

static void tick(int number)
{
	volatile char local[2000];
	(void)number;
	memset((void *)local, ticks, sizeof local);
	ticks++;
	if (may_jump && ticks % 3 == 0) {
		may_jump = 0;
		jumps++;
		siglongjmp(out, 1);
	}
}

static void timer(long microseconds)
{
	struct itimerval every = { { 0, microseconds }, { 0, microseconds } };
	CHECK(!setitimer(ITIMER_REAL, &every, NULL));
}

int main(void)
{
	stack_t alternate = { .ss_size = 64 * KB };
	CHECK(alternate.ss_sp = malloc(alternate.ss_size));
	CHECK(!sigaltstack(&alternate, NULL));
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_ONSTACK | SA_RESTART };
	CHECK(!sigaction(SIGALRM, &action, NULL));

	enum { LIVE = 200 };
	static struct { unsigned char *p; size_t n; } live[LIVE];
	static volatile uint64_t work;
	Random r = random_from(4);
	timer(150);
	for (int i = 0; (ticks < 2500 || !jumps) && i < 20000000; i++) {
		size_t slot = below(&r, LIVE);
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, slot);
		if (i % 5 == 0 && live[slot].p) {
			size_t old = live[slot].n;
			live[slot].n = random_size(&r) + 1;
			CHECK(live[slot].p = realloc(live[slot].p, live[slot].n));
			VERIFY(live[slot].p, old < live[slot].n ? old : live[slot].n, slot);
		} else {
			free(live[slot].p);
			live[slot].n = random_size(&r);
			CHECK(live[slot].p = malloc(live[slot].n));
		}
		fill(live[slot].p, live[slot].n, slot);
		if (i % 100 == 0 && !sigsetjmp(out, 1)) {
			may_jump = 1;
			for (int k = 0; k < 3000; k++) work += (uint64_t)k;
			may_jump = 0;
		}
	}
	timer(0);
	CHECK2(ticks > 100, ticks, jumps);
	CHECK2(jumps > 0, ticks, jumps);
	for (size_t slot = 0; slot < LIVE; slot++) {
		if (live[slot].p) VERIFY(live[slot].p, live[slot].n, slot);
		free(live[slot].p);
	}
	/* The alternate stack goes back to the heap it came from. */
	stack_t none = { .ss_flags = SS_DISABLE };
	CHECK(!sigaltstack(&none, NULL));
	free(alternate.ss_sp);
	return 0;
}
