/* A program that the terminal or another process ends by a signal, as servers are ended, tells of
 * its heap first, unless it handles the signal itself or ignores it. It does not see that: what it
 * asks for the handler, to set one of its own only in the place of none, is answered as without the
 * profile. */
#define _GNU_SOURCE
#include "library.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define PUBLIC __attribute__((visibility("default")))

typedef void handler(int);

/* libc's own. */
static int (*next_sigaction)(int, const struct sigaction *, struct sigaction *);
static handler *(*next_signal)(int, handler *);

/* The signals whose default is the end, and which people send. */
static const int ends[] = {SIGINT, SIGTERM, SIGHUP};

static void on_end(int signal)
{
	struct sigaction none;
	sigset_t one;
	memset(&none, 0, sizeof none);
	none.sa_handler = SIG_DFL;
	byssal_profile_finish();
	next_sigaction(signal, &none, 0);
	raise(signal);
	/* It is blocked as long as its handler runs. */
	sigemptyset(&one);
	sigaddset(&one, signal);
	pthread_sigmask(SIG_UNBLOCK, &one, 0);
}

static void find(void)
{
	if (!next_sigaction) next_sigaction = dlsym(RTLD_NEXT, "sigaction");
	if (!next_signal) next_signal = dlsym(RTLD_NEXT, "signal");
}

HIDDEN void byssal_profile_begin_signals(int are_handled)
{
	struct sigaction ours, before;
	find();
	if (!are_handled || !next_sigaction) return;
	memset(&ours, 0, sizeof ours);
	ours.sa_handler = on_end;
	ours.sa_flags = SA_ONSTACK;
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		if (!next_sigaction(ends[i], 0, &before) && before.sa_handler == SIG_DFL)
			next_sigaction(ends[i], &ours, 0);
}

PUBLIC int sigaction(int signal, const struct sigaction *new, struct sigaction *old)
{
	find();
	if (!next_sigaction) {
		errno = ENOSYS;
		return -1;
	}
	int result = next_sigaction(signal, new, old);
	if (!result && old && old->sa_handler == on_end) {
		memset(old, 0, sizeof *old);
		old->sa_handler = SIG_DFL;
	}
	return result;
}

PUBLIC handler *signal(int signal, handler *new)
{
	find();
	if (!next_signal) {
		errno = ENOSYS;
		return SIG_ERR;
	}
	handler *old = next_signal(signal, new);
	return old == on_end ? SIG_DFL : old;
}
