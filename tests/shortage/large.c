/* Blocks with mappings of their own: made, grown, shrunk, cached, moved to slots and back. */
#include "shortage.h"

int main(void)
{
	static const size_t size[] = { 200000, 700000, 150000, 1300000, 2500000 };
	Random r = random_from(2);
	begin();
	for (size_t i = 0; i < COUNT(size); i++) take(size[i]);
	for (int i = 0; i < 30; i++) {
		resize(below(&r, MOST), below(&r, 3) ? 140000 + below(&r, 900000) : below(&r, 5000));
		if (i % 4 == 0) drop(below(&r, MOST));
		if (i % 3 == 0) take(132000 + below(&r, 700000));
		if (i % 6 == 0) take_aligned((size_t)1 << (12 + below(&r, 10)), 135000 + below(&r, 300000));
	}
	end();
	return 0;
}
