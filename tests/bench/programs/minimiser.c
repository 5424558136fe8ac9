/* Mixed churn of a two-level logic minimiser: covers are arrays of pointers to cubes (bit sets of
 * 16 to some 100 bytes); merging makes new cubes, containment drops them, arrays grow by realloc,
 * sub-covers are made by recursion and thrown away.
 * minimiser VARIABLES CUBES ROUNDS */
#include "bench.h"

/* Two bits a variable: 01 it must be 0, 10 it must be 1, 11 it does not matter. */
struct cover {
	int used, room, words;
	uint32_t **cube;
};

static uint64_t made;

static uint32_t *cube_new(int words)
{
	made++;
	return checked(malloc(sizeof(uint32_t) * (size_t)words));
}

static struct cover *cover_new(int words)
{
	struct cover *c = checked(malloc(sizeof *c));
	*c = (struct cover){0, 0, words, NULL};
	made++;
	return c;
}

static void cover_add(struct cover *c, uint32_t *cube)
{
	if (c->used == c->room) {
		c->room = c->room ? c->room + c->room / 2 + 1 : 4;
		c->cube = checked(realloc(c->cube, sizeof *c->cube * (size_t)c->room));
		made++;
	}
	c->cube[c->used++] = cube;
}

static void cover_free(struct cover *c)
{
	for (int i = 0; i < c->used; i++) free(c->cube[i]);
	free(c->cube);
	free(c);
}

static int contains(const uint32_t *a, const uint32_t *b, int words)
{
	for (int i = 0; i < words; i++)
		if (b[i] & ~a[i]) return 0;
	return 1;
}

/* The variables in which two cubes have nothing in common, counted up to 2. */
static int distance(const uint32_t *a, const uint32_t *b, int words)
{
	int count = 0;
	for (int i = 0; i < words && count < 2; i++) {
		uint32_t both = a[i] & b[i];
		uint32_t none = ~(both | both >> 1) & 0x55555555u;
		for (; none && count < 2; none &= none - 1) count++;
	}
	return count;
}

/* Drops the cubes that another one contains. */
static void irredundant(struct cover *c)
{
	int kept = 0;
	for (int i = 0; i < c->used; i++) {
		int inside = 0;
		for (int j = 0; j < c->used && !inside; j++)
			inside = j != i && c->cube[j] && contains(c->cube[j], c->cube[i], c->words);
		if (inside) {
			free(c->cube[i]);
			c->cube[i] = NULL;
		}
	}
	for (int i = 0; i < c->used; i++)
		if (c->cube[i]) c->cube[kept++] = c->cube[i];
	c->used = kept;
}

/* All consensus terms of cubes at distance one, along with the cubes that they came from. */
static struct cover *expand(const struct cover *c, int limit)
{
	struct cover *out = cover_new(c->words);
	for (int i = 0; i < c->used; i++) {
		uint32_t *copy = cube_new(c->words);
		memcpy(copy, c->cube[i], sizeof *copy * (size_t)c->words);
		cover_add(out, copy);
		for (int j = 0; j < i && out->used < limit; j++) {
			const uint32_t *a = c->cube[i], *b = c->cube[j];
			uint32_t *term = cube_new(c->words);
			for (int k = 0; k < c->words; k++) {
				uint32_t both = a[k] & b[k];
				uint32_t none = ~(both | both >> 1) & 0x55555555u;
				term[k] = both | none | none << 1;
			}
			if (distance(a, b, c->words) == 1) cover_add(out, term);
			else free(term);
		}
	}
	return out;
}

static struct cover *cofactor(const struct cover *c, int variable, int value)
{
	struct cover *out = cover_new(c->words);
	int word = variable / 16, shift = variable % 16 * 2;
	for (int i = 0; i < c->used; i++) {
		if (!(c->cube[i][word] >> shift & (value ? 2u : 1u))) continue;
		uint32_t *copy = cube_new(c->words);
		memcpy(copy, c->cube[i], sizeof *copy * (size_t)c->words);
		copy[word] |= 3u << shift;
		cover_add(out, copy);
	}
	return out;
}

static uint64_t split(struct cover *c, int variable, int depth)
{
	irredundant(c);
	uint64_t sum = (uint64_t)c->used;
	for (int i = 0; i < c->used; i++) sum = mix(sum, c->cube[i][variable / 16]);
	if (depth && c->used > 2)
		for (int value = 0; value < 2; value++)
			sum = mix(sum, split(cofactor(c, variable, value), variable + 1, depth - 1));
	cover_free(c);
	return sum;
}

int main(int argc, char **argv)
{
	int variables = (int)argument(argc, argv, 1, 64), cubes = (int)argument(argc, argv, 2, 60);
	long rounds = argument(argc, argv, 3, 10);
	uint64_t seed = 3, sum = 0;
	for (long round = 0; round < rounds; round++) {
		int words = (variables + (int)(round % 5) * 32 + 15) / 16;
		struct cover *c = cover_new(words);
		for (int i = 0; i < cubes; i++) {
			uint32_t *cube = cube_new(words);
			for (int k = 0; k < words; k++) cube[k] = 0xffffffffu;
			for (int k = 0; k < 7; k++) {
				int v = (int)below(&seed, 20);
				cube[v / 16] &= ~((1u + below(&seed, 2)) << v % 16 * 2);
			}
			cover_add(c, cube);
		}
		struct cover *wide = expand(c, cubes * 8);
		sum = mix(sum, split(wide, 0, 7));
		sum = mix(sum, split(c, 0, 7));
	}
	return report("minimiser", sum, made);
}
