/* Small-object churn of a symbolic-algebra program: continued fractions of square roots in exact
 * numbers. Every intermediate result is a new number on the heap of 12 to some 100 bytes that
 * dies soon; few are live at a time.
 * symbolic ROOTS TERMS */
#include "bench.h"

struct number {
	uint32_t words;
	uint32_t word[];
};

static uint64_t made;

static struct number *number_new(uint32_t words)
{
	struct number *n = checked(malloc(sizeof *n + sizeof n->word[0] * words));
	n->words = words;
	made++;
	return n;
}

static struct number *number_of(uint32_t value)
{
	struct number *n = number_new(1);
	n->word[0] = value;
	return n;
}

static struct number *trimmed(struct number *n)
{
	while (n->words > 1 && !n->word[n->words - 1]) n->words--;
	return n;
}

static struct number *times(const struct number *a, uint32_t by)
{
	struct number *n = number_new(a->words + 1);
	uint64_t carry = 0;
	for (uint32_t i = 0; i < a->words; i++) {
		carry += (uint64_t)a->word[i] * by;
		n->word[i] = (uint32_t)carry;
		carry >>= 32;
	}
	n->word[a->words] = (uint32_t)carry;
	return trimmed(n);
}

static struct number *plus(const struct number *a, const struct number *b)
{
	uint32_t words = a->words > b->words ? a->words : b->words;
	struct number *n = number_new(words + 1);
	uint64_t carry = 0;
	for (uint32_t i = 0; i < words; i++) {
		carry += i < a->words ? a->word[i] : 0;
		carry += i < b->words ? b->word[i] : 0;
		n->word[i] = (uint32_t)carry;
		carry >>= 32;
	}
	n->word[words] = (uint32_t)carry;
	return trimmed(n);
}

static uint32_t modulo(const struct number *a, uint32_t by)
{
	uint64_t rest = 0;
	for (uint32_t i = a->words; i--;) rest = (rest << 32 | a->word[i]) % by;
	return (uint32_t)rest;
}

/* by * a + b, the old b given up. */
static struct number *step(uint32_t by, const struct number *a, struct number *b)
{
	struct number *product = times(a, by);
	struct number *sum = plus(product, b);
	free(product);
	free(b);
	return sum;
}

/* The convergents p/q of root(n) hold p*p - n*q*q = (-1)^k * d, checked modulo primes. */
static uint64_t expand(uint32_t n, uint32_t root, long terms)
{
	static const uint32_t primes[] = {4294967291u, 2147483647u};
	uint64_t m = 0, d = 1, a = root, sum = 0;
	struct number *p = number_of(root), *p_old = number_of(1);
	struct number *q = number_of(1), *q_old = number_of(0);
	for (long k = 1; k <= terms; k++) {
		m = d * a - m;
		d = (n - m * m) / d;
		a = (root + m) / d;
		for (int i = 0; i < 2; i++) {
			uint64_t r = primes[i], pr = modulo(p, primes[i]), qr = modulo(q, primes[i]);
			uint64_t left = pr * pr % r, right = qr * qr % r * n % r;
			uint64_t want = k % 2 ? (right + r - d) % r : (right + d) % r;
			if (left != want) fail("a convergent");
		}
		struct number *p_new = step((uint32_t)a, p, p_old);
		struct number *q_new = step((uint32_t)a, q, q_old);
		p_old = p;
		p = p_new;
		q_old = q;
		q = q_new;
		sum = mix(sum, p->word[0] ^ q->word[q->words - 1]);
	}
	free(p);
	free(p_old);
	free(q);
	free(q_old);
	return sum;
}

int main(int argc, char **argv)
{
	long roots = argument(argc, argv, 1, 1000), terms = argument(argc, argv, 2, 60);
	uint64_t sum = 0;
	uint32_t root = 1;
	for (uint32_t n = 2; roots; n++) {
		while ((uint64_t)(root + 1) * (root + 1) <= n) root++;
		if ((uint64_t)root * root == n) continue;
		sum = mix(sum, expand(n, root, terms));
		roots--;
	}
	return report("symbolic", sum, made);
}
