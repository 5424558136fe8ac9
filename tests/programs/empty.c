/* A program that needs no heap starts and ends. */
int main(void)
{
	return 0;
}
