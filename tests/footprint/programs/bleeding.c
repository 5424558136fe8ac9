/* Bleeding between heaps, after Larson and Krishnan (ISMM 1998): each thread replaces blocks at
 * random in its share, then hands the share to a new thread and ends. Most blocks are freed by
 * a thread that did not take them. */
#include "footprint.h"

enum { THREADS = 4, ROUNDS = 24 };
static Block *shares[THREADS];
static size_t each;
static atomic_uint round_number;

static void work(unsigned number)
{
	Random random = random_from(number + round_number * 100u);
	for (size_t i = 0; i < each * 2; i++) {
		Block *block = shares[number] + below(&random, each);
		put(block);
		*block = get(10 + below(&random, 990));
	}
}

int main(int argc, char **argv)
{
	begin(argc, argv, 32 * MB);
	static Worker workers[THREADS];
	each = most / 505 / THREADS;
	for (unsigned i = 0; i < THREADS; i++) shares[i] = table(each * sizeof **shares);
	for (round_number = 0; round_number < ROUNDS; round_number++) {
		for (unsigned i = 0; i < THREADS; i++) start_worker(workers + i, i, work);
		for (unsigned i = 0; i < THREADS; i++) await_worker(workers + i);
		sample();
		/* The next thread works on another's share. */
		Block *first = shares[0];
		for (unsigned i = 1; i < THREADS; i++) shares[i - 1] = shares[i];
		shares[THREADS - 1] = first;
	}
	check_slots();
	for (unsigned i = 0; i < THREADS; i++)
		for (size_t j = 0; j < each; j++) put(shares[i] + j);
	finish();
}
