/* beat NOTIFY-SOCKET COUNT: a daemon that says READY=1, then COUNT times a STATUS, one every
 * 2 ms, and prints how many nanoseconds each send took. */
#include "bench.h"

int main(int argc, char **argv)
{
	if (argc != 3)
		errno = EINVAL, die("read the arguments");
	int fd = notifier(argv[1]);
	say(fd, "READY=1");
	for (long i = 0, n = atol(argv[2]); i < n; i++) {
		char b[32];
		snprintf(b, sizeof b, "STATUS=%ld", i);
		rest(2000000);
		int64_t begin = now();
		say(fd, b);
		printf("%lld\n", (long long)(now() - begin));
	}
	return 0;
}
