/* flood [-c] [-r] PATH COUNT: sends COUNT messages as fast as it can and prints how many
 * nanoseconds passed until all were applied. -c: a socket for each, as libsystemd does.
 * -r: READY=1 first. COUNT 0: for ever. */
#include "bench.h"

int main(int argc, char **argv)
{
	int each = 0, ready = 0, o;
	while ((o = getopt(argc, argv, "cr")) > 0)
		each |= o == 'c', ready |= o == 'r';
	if (argc - optind != 2)
		errno = EINVAL, die("read the arguments");
	const char *path = argv[optind];
	long count = atol(argv[optind + 1]);
	struct sockaddr_un a = at(path);
	int fd = notifier(path);
	if (ready)
		say(fd, "READY=1");
	barrier(fd);
	int64_t begin = now();
	for (long i = 0; count == 0 || i < count; i++) {
		char b[64];
		int n = snprintf(b, sizeof b, "WATCHDOG=1\nSTATUS=ts %lld", (long long)begin + i);
		if (!each) {
			if (send(fd, b, n, 0) < 0)
				die("send");
			continue;
		}
		int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (s < 0 || sendto(s, b, n, 0, (void *)&a, sizeof a) < 0)
			die("send");
		close(s);
	}
	barrier(fd);
	printf("%lld\n", (long long)(now() - begin));
	return 0;
}
