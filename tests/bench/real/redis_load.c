/* Starts a redis-server on a unix socket of the current directory, sends it commands in pipelined
 * batches, and stops it. Allocates nothing itself; prints a checksum of all replies.
 * redis_load SERVER BATCHES */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEPTH = 50, ROOM = 1 << 16 };

static char out[ROOM], in[ROOM];
static size_t out_used, in_used, in_at;
static int sock, waiting;
static uint64_t sum, seed = 1;

static void fail(const char *what)
{
	fprintf(stderr, "redis_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint32_t draw(uint32_t limit)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 32) % limit);
}

static pid_t start(const char *server)
{
	pid_t pid = fork();
	if (pid < 0) fail("fork");
	if (pid == 0) {
		execl(server, "redis-server", "--port", "0", "--unixsocket", "redis.sock", "--save", "",
			"--appendonly", "no", "--logfile", "redis.log", (char *)NULL);
		fail(server);
	}
	return pid;
}

static void connect_within_seconds(int seconds)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "redis.sock"};
	for (int i = 0; i < seconds * 500; i++) {
		sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (!connect(sock, (struct sockaddr *)&address, sizeof address)) return;
		close(sock);
		usleep(2000);
	}
	fail("connect");
}

static int next_byte(void)
{
	if (in_at == in_used) {
		ssize_t n = read(sock, in, ROOM);
		if (n <= 0) return -1;
		in_used = (size_t)n;
		in_at = 0;
	}
	int c = (unsigned char)in[in_at++];
	sum = (sum ^ (uint64_t)c) * 0x9e3779b97f4a7c15u;
	sum ^= sum >> 32;
	return c;
}

static long number(void)
{
	char digits[32];
	size_t n = 0;
	for (int c; (c = next_byte()) != '\r';) {
		if (c < 0 || n == sizeof digits - 1) fail("a reply's number");
		digits[n++] = (char)c;
	}
	next_byte();
	digits[n] = 0;
	return strtol(digits, NULL, 10);
}

static void reply(void)
{
	int type = next_byte();
	if (type == '$') {
		long n = number();
		if (n >= 0)
			for (n += 2; n; n--) next_byte();
	} else if (type == '*') {
		for (long n = number(); n > 0; n--) reply();
	} else if (type == ':' || type == '+') {
		while (next_byte() != '\n') {}
	} else {
		fail("an error reply");
	}
}

static void flush(void)
{
	for (size_t at = 0; at < out_used;) {
		ssize_t n = write(sock, out + at, out_used - at);
		if (n <= 0) fail("write");
		at += (size_t)n;
	}
	out_used = 0;
	for (; waiting; waiting--) reply();
}

/* A command of count words; a word that is NULL is a value of random length. */
static void command(int count, ...)
{
	va_list words;
	va_start(words, count);
	out_used += (size_t)sprintf(out + out_used, "*%d\r\n", count);
	for (int i = 0; i < count; i++) {
		const char *word = va_arg(words, const char *);
		size_t n = word ? strlen(word) : 8 + draw(draw(8) ? 120 : 900);
		out_used += (size_t)sprintf(out + out_used, "$%zu\r\n", n);
		if (word) memcpy(out + out_used, word, n);
		else memset(out + out_used, 'a' + (int)draw(26), n);
		out_used += n;
		memcpy(out + out_used, "\r\n", 2);
		out_used += 2;
	}
	va_end(words);
	waiting++;
}

static void some_command(void)
{
	char key[32], field[32];
	sprintf(key, "key:%u", draw(20000));
	sprintf(field, "%u", draw(200));
	switch (draw(12)) {
	case 0: case 1: case 2: command(3, "SET", key, (char *)NULL); break;
	case 3: case 4: command(2, "GET", key); break;
	case 5: command(2, "DEL", key); break;
	case 6: command(4, "HSET", "a hash", key, (char *)NULL); break;
	case 7: command(3, "HDEL", "a hash", key); break;
	case 8: command(3, "LPUSH", "a list", (char *)NULL); break;
	case 9: command(4, "LRANGE", "a list", "0", "9"); break;
	case 10: command(4, "ZADD", "a sorted set", field, key); break;
	default: command(4, "LTRIM", "a list", "0", "2000"); break;
	}
}

int main(int argc, char **argv)
{
	if (argc < 3) fail("usage: redis_load SERVER BATCHES");
	long batches = strtol(argv[2], NULL, 10);
	pid_t pid = start(argv[1]);
	connect_within_seconds(20);
	for (long i = 0; i < batches; i++) {
		for (int k = 0; k < DEPTH; k++) some_command();
		flush();
	}
	command(2, "FLUSHALL", "SYNC");
	command(1, "DBSIZE");
	flush();
	command(2, "SHUTDOWN", "NOSAVE");
	waiting = 0;
	flush();
	int status;
	if (waitpid(pid, &status, 0) != pid || status) fail("the server's end");
	printf("redis checksum=%016" PRIx64 "\nops=%ld\n", sum, batches * DEPTH);
	return 0;
}
