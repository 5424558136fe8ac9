/* Growing realloc: vectors grow by half, in turn at random, with small blocks taken in between;
 * one long buffer grows by a page at a time. Then each vector shrinks to an eighth. */
#include "footprint.h"

enum { VECTORS = 64 };

int main(int argc, char **argv)
{
	begin(argc, argv, 64 * MB);
	Random random = random_from(2);
	Block *vectors = table(VECTORS * sizeof *vectors), *pins = table(MB * sizeof *pins);
	size_t pinned = 0, open = VECTORS, step = 0;
	for (size_t i = 0; i < VECTORS; i++) vectors[i] = get(16 + below(&random, 48));
	Block buffer = get(4096);
	while (open) {
		Block *vector = vectors + below(&random, VECTORS);
		if (vector->n < most / 2 / VECTORS) {
			resize(vector, vector->n + vector->n / 2);
			open -= vector->n >= most / 2 / VECTORS;
			for (int i = 0; i < 10; i++) pins[pinned++] = get(1 + below(&random, 200));
		}
		if (buffer.n < most / 4 && step % 2 == 0) resize(&buffer, buffer.n + 4096);
		if (step++ % 8 == 0) sample();
	}
	sample();
	for (size_t i = 0; i < VECTORS; i++) resize(vectors + i, vectors[i].n / 8);
	thin();
	check_slots();
	for (size_t i = 0; i < VECTORS; i++) put(vectors + i);
	put(&buffer);
	for (size_t i = 0; i < pinned; i++) put(pins + i);
	finish();
}
