/* A crash reporter: the handler of the signal by which a fault stops a process allocates without
 * restraint, prints by stdio and forks, while another thread runs. For each kind of block and of
 * fault, whoever finds it, in a child of its own. */
#include "children.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { REPORTED = 42 };

typedef struct {
	const char *name;
	size_t align, n;
} Kind;

static const Kind kinds[] = {
	{"short slot", 1, 40},
	{"slot", 1, 600},
	{"long slot", 1, 20000},
	{"aligned slot", 64, 100},
	{"run of pages", 4096, 5000},
	{"large", 1, 200001},
	{"larger", 1, 5000001},
	{"aligned large", 1 << 20, 200001},
};

static int exiting;

/* musl's loader runs destructors, among them the library's last look, with a lock held that fork
 * takes: there nobody may fork. */
#if !defined __GLIBC__ && defined ON_PRELOAD
#define FORKS !exiting
#else
#define FORKS 1
#endif

static void report(int signal)
{
	(void)signal;
	alarm(20);
	use_heap(1, 2000);
	FILE *file = fopen("/dev/null", "w");
	if (!file || fprintf(file, "%*d\n", 3000, 1) < 3000 || fclose(file)) _exit(1);
	char *line = malloc(100);
	line = realloc(line, 300000);
	line = realloc(line, 10);
	free(line);
	pid_t child = FORKS ? fork() : 0;
	if (!child) {
		if (!FORKS) _exit(REPORTED);
		use_heap(2, 2000);
		/* Not exit: the process may be in it. */
		_exit(0);
	}
	int status;
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR) _exit(2);
	_exit(status ? 3 : REPORTED);
}

static void *idle(void *unused)
{
	for (;;) pause();
	return unused;
}

static void *make(const Kind *kind)
{
	void *p = kind->align > 1 ? aligned_alloc(kind->align, kind->n) : malloc(kind->n);
	CHECK(p);
	return p;
}

static void overflow(void *p)
{
	unsigned char *end = (unsigned char *)p + malloc_usable_size(p);
	*end ^= 0x55;
}

/* A whole reuse queue is verified after so many at the latest. */
static void churn(const Kind *kind)
{
	void *p[40];
	for (size_t i = 0; i < COUNT(p); i++) p[i] = make(kind);
	for (size_t i = 0; i < COUNT(p); i++) free(p[i]);
}

static void overflow_free(const Kind *kind)
{
	void *p = make(kind);
	overflow(p);
	free(p);
	churn(kind);
}

static void overflow_realloc(const Kind *kind)
{
	void *p = make(kind);
	overflow(p);
	free(realloc(p, 2 * kind->n));
	churn(kind);
}

static void overflow_shrink(const Kind *kind)
{
	void *p = make(kind);
	overflow(p);
	free(realloc(p, kind->n - 1));
	churn(kind);
}

static void overflow_exit(const Kind *kind)
{
	void *p = make(kind);
	overflow(p);
	free(p);
	exiting = 1;
	exit(0);
}

static void *free_it(void *p)
{
	free(p);
	pause();
	return p;
}

static void elsewhere(void *p)
{
	pthread_t thread;
	CHECK(!pthread_create(&thread, NULL, free_it, p));
	for (;;) pause();
}

static void overflow_other(const Kind *kind)
{
	void *p = make(kind);
	overflow(p);
	elsewhere(p);
}

static void double_free(const Kind *kind)
{
	void *p = make(kind);
	free(p);
	free(p);
}

static void double_other(const Kind *kind)
{
	void *p = make(kind);
	free(p);
	elsewhere(p);
}

static void freed_realloc(const Kind *kind)
{
	void *volatile p = make(kind);
	free(p);
	free(realloc(p, 3 * kind->n));
}

static void freed_size(const Kind *kind)
{
	void *volatile p = make(kind);
	free(p);
	if (malloc_usable_size(p)) churn(kind);
}

static void interior(const Kind *kind)
{
	free((char *)make(kind) + 16);
}

static void mapped(const Kind *kind)
{
	(void)kind;
	char here;
	void *volatile p = &here;
	free(p);
}

static const struct {
	const char *name;
	void (*run)(const Kind *);
} misuses[] = {
	{"overflow, free", overflow_free},
	{"overflow, realloc", overflow_realloc},
	{"overflow, realloc to less", overflow_shrink},
	{"overflow, free, exit", overflow_exit},
	{"overflow, free by another thread", overflow_other},
	{"double free", double_free},
	{"double free by another thread", double_other},
	{"realloc of a freed block", freed_realloc},
	{"size of a freed block", freed_size},
	{"free of an interior pointer", interior},
	{"free of the stack", mapped},
};

static void run(size_t kind, size_t misuse)
{
	static const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGABRT};
	for (size_t i = 0; i < COUNT(signals); i++) signal(signals[i], report);
	pthread_t thread;
	CHECK(!pthread_create(&thread, NULL, idle, NULL));
	/* Neighbours that stay. */
	for (size_t i = 0; i < 4; i++) CHECK(make(&kinds[kind]));
	misuses[misuse].run(&kinds[kind]);
	_exit(4);
}

int main(void)
{
	/* The libraries print each fault. */
	int null = open("/dev/null", O_WRONLY);
	for (size_t kind = 0; kind < COUNT(kinds); kind++) {
		for (size_t misuse = 0; misuse < COUNT(misuses); misuse++) {
			pid_t child = fork();
			if (!child) {
				dup2(null, 2);
				run(kind, misuse);
			}
			int status = 0;
			CHECK(waitpid(child, &status, 0) == child);
			if (WIFEXITED(status) && WEXITSTATUS(status) == REPORTED) continue;
			say_to(2, kinds[kind].name);
			say_to(2, ": ");
			say_to(2, misuses[misuse].name);
			say_to(2, ": not reported\n");
			CHECK2(0, WIFSIGNALED(status) ? WTERMSIG(status) : 0, WEXITSTATUS(status));
		}
	}
	return 0;
}
