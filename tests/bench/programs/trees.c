/* A compiler's pattern: trees of small nodes of several kinds are built, walked, rewritten and
 * torn down node by node, while one long-lived tree stays.
 * trees DEPTH ROUNDS */
#include "bench.h"

enum kind { LEAF, UNARY, BINARY, LIST, KINDS };

struct node {
	enum kind kind;
	uint32_t value;
	struct node *child[];
};

static const int children[KINDS] = {0, 1, 2, 4};
static uint64_t made;

static struct node *node_new(enum kind kind, uint32_t value)
{
	struct node *n = checked(malloc(sizeof *n + sizeof n->child[0] * (size_t)children[kind]));
	n->kind = kind;
	n->value = value;
	made++;
	return n;
}

static struct node *grow(uint64_t *seed, int depth)
{
	enum kind kind = depth > 0 ? (enum kind)(1 + below(seed, KINDS - 1)) : LEAF;
	struct node *n = node_new(kind, draw(seed));
	for (int i = 0; i < children[kind]; i++) n->child[i] = grow(seed, depth - 1);
	return n;
}

static uint64_t walk(const struct node *n)
{
	uint64_t sum = mix((uint64_t)n->kind, n->value);
	for (int i = 0; i < children[n->kind]; i++) sum = mix(sum, walk(n->child[i]));
	return sum;
}

static void drop(struct node *n)
{
	for (int i = 0; i < children[n->kind]; i++) drop(n->child[i]);
	free(n);
}

/* A pass: unary nodes are folded into their child, lists become pairs of binaries. */
static struct node *rewrite(struct node *n)
{
	for (int i = 0; i < children[n->kind]; i++) n->child[i] = rewrite(n->child[i]);
	struct node *result = n;
	if (n->kind == UNARY) {
		result = n->child[0];
		result->value ^= n->value;
		free(n);
	} else if (n->kind == LIST) {
		result = node_new(BINARY, n->value);
		for (int i = 0; i < 2; i++) {
			struct node *half = node_new(BINARY, n->value + (uint32_t)i);
			half->child[0] = n->child[2 * i];
			half->child[1] = n->child[2 * i + 1];
			result->child[i] = half;
		}
		free(n);
	}
	return result;
}

int main(int argc, char **argv)
{
	int depth = (int)argument(argc, argv, 1, 12);
	long rounds = argument(argc, argv, 2, 8);
	uint64_t seed = 1, sum = 0;
	struct node *lasting = grow(&seed, depth);
	uint64_t before = walk(lasting);
	for (long i = 0; i < rounds; i++) {
		struct node *tree = grow(&seed, depth - (int)(i % 3));
		sum = mix(sum, walk(tree));
		tree = rewrite(tree);
		sum = mix(sum, walk(tree));
		drop(tree);
	}
	if (walk(lasting) != before) fail("the lasting tree");
	drop(lasting);
	return report("trees", mix(sum, before), made);
}
