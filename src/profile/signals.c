/* A program that the terminal or another process ends by a signal, as servers are ended, tells of
 * its heap first, unless it handles the signal itself or ignores it. It does not see that: what it
 * asks for the handler, to set one of its own only in the place of none, is answered as without the
 * profile, and where it wants none again there is the profile's again. So each function of libc
 * that sets or tells a handler is here: libc's own call each other by no name that is ours. */
#define _GNU_SOURCE
#include "library.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#define PUBLIC __attribute__((visibility("default")))

typedef void handler(int);
typedef handler *setter(int, handler *);

/* libc's own. musl lacks some, and no program there calls them. */
static int (*next_sigaction)(int, const struct sigaction *, struct sigaction *);
enum { SIGNAL, BSD_SIGNAL, SSIGNAL, SYSV_SIGNAL, ALSO_SYSV_SIGNAL, SIGSET, SETTERS };
static const char *const names[SETTERS] = {
	"signal", "bsd_signal", "ssignal", "sysv_signal", "__sysv_signal", "sigset"};
static setter *next[SETTERS];
static int are_found;

/* The signals whose default is the end, and which people send. */
static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
enum { ENDS = sizeof ends / sizeof *ends };
static int are_ends_handled;

static handler on_end;
static const struct sigaction ours = {.sa_handler = on_end, .sa_flags = SA_ONSTACK};
static const struct sigaction none = {.sa_handler = SIG_DFL};

static void on_end(int signal)
{
	sigset_t one;
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
	if (are_found) return;
	next_sigaction = dlsym(RTLD_NEXT, "sigaction");
	for (size_t i = 0; i < SETTERS; i++) next[i] = dlsym(RTLD_NEXT, names[i]);
	/* What libc lacks is no error that the program is to read. */
	dlerror();
	are_found = 1;
}

HIDDEN void byssal_profile_begin_signals(int are_handled)
{
	struct sigaction before;
	find();
	if (!are_handled || !next_sigaction) return;
	are_ends_handled = 1;
	for (size_t i = 0; i < ENDS; i++)
		if (!next_sigaction(ends[i], 0, &before) && before.sa_handler == SIG_DFL)
			next_sigaction(ends[i], &ours, 0);
}

/* Whether the profile's handler takes the place of this one. */
static int is_replaced(int signal, handler *new)
{
	int is_end = 0;
	for (size_t i = 0; i < ENDS; i++) is_end |= signal == ends[i];
	return are_ends_handled && is_end && new == SIG_DFL;
}

PUBLIC int sigaction(int signal, const struct sigaction *new, struct sigaction *old)
{
	find();
	if (!next_sigaction) {
		errno = ENOSYS;
		return -1;
	}
	if (new && is_replaced(signal, new->sa_handler)) new = &ours;
	int result = next_sigaction(signal, new, old);
	if (!result && old && old->sa_handler == on_end) *old = none;
	return result;
}

/* Never is there no handler meanwhile: the signal may come at any time. */
static handler *set(int by, int signal, handler *new)
{
	find();
	if (!next[by]) {
		errno = ENOSYS;
		return SIG_ERR;
	}
	int is_ours = is_replaced(signal, new);
	handler *old = next[by](signal, is_ours ? on_end : new);
	/* With the flags that it is to have, whatever those of this function are. */
	if (is_ours && old != SIG_ERR) next_sigaction(signal, &ours, 0);
	return old == on_end ? SIG_DFL : old;
}

PUBLIC handler *signal(int signal, handler *new)
{
	return set(SIGNAL, signal, new);
}

PUBLIC handler *bsd_signal(int signal, handler *new)
{
	return set(BSD_SIGNAL, signal, new);
}

PUBLIC handler *ssignal(int signal, handler *new)
{
	return set(SSIGNAL, signal, new);
}

PUBLIC handler *sysv_signal(int signal, handler *new)
{
	return set(SYSV_SIGNAL, signal, new);
}

/* What glibc's headers make of signal by a strict standard. */
PUBLIC handler *__sysv_signal(int signal, handler *new)
{
	return set(ALSO_SYSV_SIGNAL, signal, new);
}

PUBLIC handler *sigset(int signal, handler *new)
{
	return set(SIGSET, signal, new);
}
