/* The files in which a process tells of its heap; report.rs describes them. The profile's lock is
 * held in all of this. */
#define _GNU_SOURCE
#include "library.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* entry.rs. */
HIDDEN int byssal_profile_write(int (*put)(const unsigned char *, size_t));

#define NANOSECONDS 1000000000ull

static uint64_t began, written_at, writing_took;
/* What is set, and the whole names for this process. */
static char prefix[3072], final_path[4096], part_path[4096];
static int output, output_limited;
static uint64_t output_room;

static uint64_t now(void)
{
	struct timespec time = {0};
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
}

/* Bare system calls: those of libc are points where a thread may be cancelled. */

static int put(const unsigned char *bytes, size_t len)
{
	if (output_limited && output_room < len) return 0;
	output_room -= len;
	while (len) {
		ssize_t done = syscall(SYS_write, output, bytes, len);
		if (done < 0 && errno == EINTR) continue;
		if (done <= 0) return 0;
		bytes += done;
		len -= (size_t)done;
	}
	return 1;
}

static int put_text(const char *text)
{
	return put((const unsigned char *)text, strlen(text));
}

/* A line of the program's path; a line break in it would end the line. */
static int put_program(void)
{
	char path[4096];
	ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
	path[len < 0 ? 0 : len] = 0;
	for (char *c = path; *c; c++)
		if (*c == '\n') *c = '?';
	return put_text("program ") && put_text(path) && put_text("\n");
}

static int put_maps(void)
{
	unsigned char text[4096];
	ssize_t len = 0;
	int maps = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int whole = maps >= 0 && put_text("maps\n");
	while (whole && (len = syscall(SYS_read, maps, text, sizeof text)) > 0)
		whole = put(text, (size_t)len);
	if (maps >= 0) syscall(SYS_close, maps);
	return whole && len == 0 && put_text("end\n");
}

static int put_all(int final)
{
	char head[256];
	snprintf(head, sizeof head, "byssal heap profile 1\nstate %s\nprocess %d %d\nelapsed %llu\n",
		final ? "final" : "running", (int)getpid(), (int)getppid(),
		(unsigned long long)(now() - began));
	return put_text(head) && put_program() && byssal_profile_write(put) && put_maps();
}

/* Whole or not at all. Failure leaves the last one: nobody is told, as whatever file has the number
 * 2 is the program's; the tool sees that there is none. */
HIDDEN void byssal_profile_write_file(int final)
{
	enum { FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC };
	struct rlimit size;
	uint64_t start = now();
	/* Beyond the limit the kernel sends a signal. */
	output_limited = !getrlimit(RLIMIT_FSIZE, &size) && size.rlim_cur != RLIM_INFINITY;
	output_room = output_limited ? size.rlim_cur : 0;
	output = (int)syscall(SYS_openat, AT_FDCWD, part_path, FLAGS, 0644);
	if (output >= 0) {
		int whole = put_all(final);
		whole &= !syscall(SYS_close, output);
		if (!whole || renameat(AT_FDCWD, part_path, AT_FDCWD, final_path)) unlink(part_path);
	}
	written_at = now();
	writing_took = written_at - start;
}

/* Not more often than four times a second, nor so often that it takes more than a hundredth of all
 * time. */
HIDDEN void byssal_profile_write_now_and_then(void)
{
	uint64_t pause = NANOSECONDS / 4;
	if (pause < 100 * writing_took) pause = 100 * writing_took;
	if (now() - written_at >= pause) byssal_profile_write_file(0);
}

HIDDEN int byssal_profile_begin_files(const char *to)
{
	if (to && strlen(to) >= sizeof prefix) return 0;
	if (to) strcpy(prefix, to);
	began = written_at = now();
	writing_took = 0;
	int len = snprintf(final_path, sizeof final_path, "%s%d-%llu.heap", prefix, (int)getpid(),
		(unsigned long long)began);
	snprintf(part_path, sizeof part_path, "%.*s.part", len - 5, final_path);
	return 1;
}
