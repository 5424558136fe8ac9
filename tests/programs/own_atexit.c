/* A static program that runs its handlers of exit itself: nothing of libc may bring libc's atexit,
 * whose member has the other names below, too. */
#include "check.h"

static void (*handlers[32])(void);
static size_t count;

int atexit(void (*handler)(void))
{
	CHECK(count < COUNT(handlers));
	handlers[count++] = handler;
	return 0;
}

int __cxa_atexit(void (*handler)(void *), void *argument, void *library)
{
	(void)handler, (void)argument, (void)library;
	return -1;
}

void __cxa_finalize(void *library)
{
	(void)library;
}

static void handler(void)
{
	free(malloc(100));
	say_to(1, "handlers ran\n");
}

int main(void)
{
	CHECK(!atexit(handler));
	free(malloc(100));
	while (count) handlers[--count]();
	return 0;
}
