/* Small and middle blocks of all classes, replaced, resized, aligned. */
#include "shortage.h"

int main(void)
{
	Random r = random_from(1);
	begin();
	for (int i = 0; i < 500; i++) {
		size_t n = below(&r, 4) ? below(&r, 1500) : below(&r, 120000);
		if (i % 9 == 0) take_aligned((size_t)16 << below(&r, 9), n);
		else take(n);
		if (i % 3 == 0) drop(below(&r, MOST));
		if (i % 7 == 0) resize(below(&r, MOST), below(&r, 9000));
	}
	while (count > 50) drop(below(&r, MOST));
	for (int i = 0; i < 100; i++) take(below(&r, 30000));
	end();
	return 0;
}
