/* Text is written on and on, up from a block (VARIANT 1: down), until there is no memory. Then what
 * the allocator knows of other blocks is asked: it must be what it was. */
#include "misuse.h"

static char *known[NEIGHBOURS + 1];
static size_t usable[NEIGHBOURS + 1];

static void ask(int number, siginfo_t *info, void *context)
{
	at(CALL);
	for (size_t i = 0; i < COUNT(known) && known[i]; i++)
		if (malloc_usable_size(hide(known[i])) != usable[i]) {
			saw(CHANGED);
			_exit(0);
		}
	at(ACCESS);
	tell_fault(number, info, context);
}

int main(int argc, char **argv)
{
	char *p = victim(argc, argv);
	size_t count = 0;
	CHECK(known[count++] = malloc(size));
	for (size_t i = 0; i < neighbours; i++)
		if (neighbour[i]) known[count++] = neighbour[i];
	for (size_t i = 0; i < count; i++) usable[i] = malloc_usable_size(known[i]);
	arm(ACCESS);
	struct sigaction action = { .sa_sigaction = ask, .sa_flags = SA_SIGINFO };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	for (volatile char *at_byte = hide(p);; at_byte += variant ? -1 : 1) *at_byte = 'A';
}
