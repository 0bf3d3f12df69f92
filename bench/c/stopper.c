/* stopper MS [NAME [stay]]: a daemon that starts for MS milliseconds, stops itself, and
 * prints after how many nanoseconds it ran again. */
#include "bench.h"

int main(int argc, char **argv)
{
	int64_t ms = argc > 1 ? atoll(argv[1]) : 0;
	/* Not in step with whoever looks every so often. */
	rest(ms * 1000000 + now() % 2000003);
	int64_t begin = now();
	raise(SIGSTOP);
	printf("%lld\n", (long long)(now() - begin));
	fflush(stdout);
	while (argc > 3)
		pause();
	return 0;
}
