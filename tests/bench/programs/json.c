/* String-heavy parsing: a generated JSON text is read into a tree of values, each string and each
 * member a block of its own, arrays grown by realloc; the tree is searched, printed and dropped.
 * json RECORDS ROUNDS */
#include "bench.h"

enum type { STRING, NUMBER, ARRAY, OBJECT };

struct value {
	enum type type;
	int count, room;
	double number;
	char *text;
	char **name;
	struct value **item;
};

static uint64_t made;

static void *grown(void *p, size_t bytes)
{
	made++;
	return checked(realloc(p, bytes));
}

/* A text that grows, for the generator and the printer. */
struct text {
	char *at;
	size_t used, room;
};

static void put(struct text *t, const char *s, size_t n)
{
	if (t->used + n > t->room) {
		t->room = (t->used + n) * 2;
		t->at = grown(t->at, t->room);
	}
	memcpy(t->at + t->used, s, n);
	t->used += n;
}

static void put_string(struct text *t, const char *s)
{
	put(t, "\"", 1);
	put(t, s, strlen(s));
	put(t, "\"", 1);
}

static struct text generate(long records)
{
	static const char *const names[] = {"id", "title", "tags", "price", "author", "summary"};
	struct text t = {NULL, 0, 0};
	uint64_t seed = 5;
	char word[400];
	put(&t, "[", 1);
	for (long i = 0; i < records; i++) {
		put(&t, i ? ",{" : "{", i ? 2 : 1);
		for (int m = 0; m < 6; m++) {
			if (m) put(&t, ",", 1);
			put_string(&t, names[m]);
			put(&t, ":", 1);
			if (m == 0 || m == 3) {
				put(&t, word, (size_t)snprintf(word, sizeof word, "%u", draw(&seed) >> 8));
				continue;
			}
			int strings = m == 2 ? 1 + (int)below(&seed, 6) : 1;
			if (m == 2) put(&t, "[", 1);
			for (int k = 0; k < strings; k++) {
				size_t n = log_size(&seed, 4, m == 5 ? 380 : 40);
				for (size_t c = 0; c < n; c++) word[c] = (char)('a' + below(&seed, 26));
				word[n] = 0;
				if (k) put(&t, ",", 1);
				put_string(&t, word);
			}
			if (m == 2) put(&t, "]", 1);
		}
		put(&t, "}", 1);
	}
	put(&t, "]", 2); /* and a NUL */
	return t;
}

static struct value *value_new(enum type type)
{
	struct value *v = checked(calloc(1, sizeof *v));
	v->type = type;
	made++;
	return v;
}

static char *parse_string(const char **at)
{
	const char *end = strchr(++*at, '"');
	if (!end) fail("a string without end");
	size_t n = (size_t)(end - *at);
	char *s = grown(NULL, n + 1);
	memcpy(s, *at, n);
	s[n] = 0;
	*at = end + 1;
	return s;
}

static struct value *parse(const char **at)
{
	if (**at == '"') {
		struct value *v = value_new(STRING);
		v->text = parse_string(at);
		return v;
	}
	if (**at != '[' && **at != '{') {
		struct value *v = value_new(NUMBER);
		v->number = strtod(*at, (char **)at);
		return v;
	}
	struct value *v = value_new(**at == '[' ? ARRAY : OBJECT);
	char close = v->type == ARRAY ? ']' : '}';
	for (++*at; **at != close; *at += **at == ',') {
		if (v->count == v->room) {
			v->room = v->room ? v->room * 2 : 4;
			v->item = grown(v->item, sizeof *v->item * (size_t)v->room);
			if (v->type == OBJECT)
				v->name = grown(v->name, sizeof *v->name * (size_t)v->room);
		}
		if (v->type == OBJECT) {
			v->name[v->count] = parse_string(at);
			if (*(*at)++ != ':') fail("no colon");
		}
		v->item[v->count++] = parse(at);
	}
	++*at;
	return v;
}

static void print(struct text *t, const struct value *v)
{
	char number[40];
	if (v->type == STRING) put_string(t, v->text);
	else if (v->type == NUMBER)
		put(t, number, (size_t)snprintf(number, sizeof number, "%.0f", v->number));
	else {
		put(t, v->type == ARRAY ? "[" : "{", 1);
		for (int i = 0; i < v->count; i++) {
			if (i) put(t, ",", 1);
			if (v->type == OBJECT) {
				put_string(t, v->name[i]);
				put(t, ":", 1);
			}
			print(t, v->item[i]);
		}
		put(t, v->type == ARRAY ? "]" : "}", 1);
	}
}

static void drop(struct value *v)
{
	for (int i = 0; i < v->count; i++) {
		if (v->type == OBJECT) free(v->name[i]);
		drop(v->item[i]);
	}
	free(v->name);
	free(v->item);
	free(v->text);
	free(v);
}

int main(int argc, char **argv)
{
	long records = argument(argc, argv, 1, 2000), rounds = argument(argc, argv, 2, 10);
	struct text source = generate(records);
	uint64_t sum = 0;
	for (long i = 0; i < rounds; i++) {
		const char *at = source.at;
		struct value *v = parse(&at);
		/* Edit it: every third record loses its title and its tags. */
		struct text printed = {NULL, 0, 0};
		print(&printed, v);
		put(&printed, "", 1);
		if (printed.used != source.used || memcmp(printed.at, source.at, source.used))
			fail("what was printed is not what was read");
		for (int r = 0; r < v->count; r += 3) {
			drop(v->item[r]->item[1]);
			v->item[r]->item[1] = value_new(NUMBER);
			sum = mix(sum, (uint64_t)v->item[r]->item[0]->number);
		}
		free(printed.at);
		drop(v);
	}
	sum = mix(sum, source.used);
	free(source.at);
	return report("json", sum, made);
}
