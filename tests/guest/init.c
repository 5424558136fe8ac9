/* The first process of a system that ci/booted starts. The host's files are its own, by 9p; in the
 * folder $queue ci/in-guest leaves what is to be run. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1024, PAUSE = 10000 /* microseconds */ };

/* A program that runs. */
struct run {
	pid_t pid;
	char folder[512];
	struct run *next;
};

static struct run *runs;

/* Ends the system, as its first process may not. */
static void stop(const char *what)
{
	fprintf(stderr, "init: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char path[512];
		snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
		int file = open(path, O_RDONLY | O_CLOEXEC);
		if (names[i]->d_name[0] != '.' && syscall(SYS_finit_module, file, "", 0))
			stop(path);
		close(file);
	}
}

static void lay_mount(const char *kind, const char *from, const char *at, const char *options)
{
	mkdir(at, 0755);
	if (mount(from, at, kind, 0, options))
		stop(at);
}

/* The host's files, and over them what is the system's own. */
static void lay_files(void)
{
	lay_mount("9p", "host", "/host", "trans=virtio,version=9p2000.L,msize=262144,cache=mmap");
	lay_mount("proc", "proc", "/host/proc", NULL);
	lay_mount("devtmpfs", "dev", "/host/dev", NULL);
	lay_mount("tmpfs", "tmp", "/host/tmp", NULL);
	lay_mount("tmpfs", "shm", "/host/dev/shm", NULL);
	/* The host's shell and `true` are of another machine. */
	if (mount("/busybox", "/host/bin/sh", NULL, MS_BIND, NULL) ||
		mount("/busybox", "/host/bin/true", NULL, MS_BIND, NULL))
		stop("busybox");
	if (chroot("/host") || chdir("/"))
		stop("chroot");
}

/* The file's parts between zeros, in at most MOST - 1 words; the caller keeps them for ever. */
static char **words(const char *folder, const char *name)
{
	static const size_t most = 1 << 20;
	char path[600], *text = calloc(1, most), **list = calloc(MOST, sizeof *list);
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "re");
	if (!file || !text || !list)
		_exit(126);
	size_t n = fread(text, 1, most - 1, file), count = 0;
	for (size_t at = 0; at < n && count < MOST - 1; at += strlen(text + at) + 1)
		list[count++] = text + at;
	return list;
}

/* Lets an output of this process go to a file. */
static void redirect(int output, const char *folder, const char *name, int flags)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	if (dup2(open(name[0] == '/' ? name : path, flags, 0644), output) < 0)
		_exit(126);
}

/* Starts what a folder asks for: in `command` the working directory and the words of the command,
 * in `environment` the variables. */
static void start(const char *folder)
{
	struct run *run = malloc(sizeof *run);
	if (!run)
		stop("malloc");
	snprintf(run->folder, sizeof run->folder, "%s", folder);
	run->pid = fork();
	if (run->pid < 0)
		stop("fork");
	if (run->pid == 0) {
		char **command = words(folder, "command"), **environment = words(folder, "environment");
		setsid();
		redirect(0, folder, "/dev/null", O_RDONLY);
		redirect(1, folder, "stdout", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
		redirect(2, folder, "stderr", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
		if (!command[0] || !command[1] || chdir(command[0]))
			_exit(126);
		execve(command[1], command + 1, environment);
		_exit(127);
	}
	run->next = runs;
	runs = run;
}

/* Says in `status` how a run ended. */
static void end(pid_t pid, int status)
{
	for (struct run **at = &runs; *at; at = &(*at)->next) {
		struct run *run = *at;
		if (run->pid != pid)
			continue;
		char part[600], whole[600];
		snprintf(part, sizeof part, "%s/part", run->folder);
		snprintf(whole, sizeof whole, "%s/status", run->folder);
		FILE *file = fopen(part, "we");
		if (!file)
			stop(part);
		fprintf(file, WIFSIGNALED(status) ? "signal %d\n" : "exit %d\n",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		if (fclose(file) || rename(part, whole))
			stop(whole);
		*at = run->next;
		free(run);
		return;
	}
}

/* Starts all that waits: folders whose names begin with "ready.", and with "run." from then on. */
static void look(const char *queue)
{
	DIR *all = opendir(queue);
	if (!all)
		stop(queue);
	for (struct dirent *entry; (entry = readdir(all));) {
		if (strncmp(entry->d_name, "ready.", 6))
			continue;
		char ready[512], taken[512];
		snprintf(ready, sizeof ready, "%s/%s", queue, entry->d_name);
		snprintf(taken, sizeof taken, "%s/run.%s", queue, entry->d_name + 6);
		if (rename(ready, taken))
			stop(ready);
		start(taken);
	}
	closedir(all);
}

int main(void)
{
	const char *queue = getenv("queue");
	struct utsname name;
	load_modules();
	lay_files();
	if (!queue || uname(&name))
		stop("queue");
	char path[512];
	snprintf(path, sizeof path, "%s/up", queue);
	FILE *up = fopen(path, "we");
	if (!up)
		stop(path);
	fprintf(up, "%s %s %ld\n", name.machine, name.release, sysconf(_SC_PAGESIZE));
	if (fclose(up))
		stop(path);
	for (;;) {
		int status;
		pid_t pid;
		look(queue);
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			end(pid, status);
		usleep(PAUSE);
	}
}
