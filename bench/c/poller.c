/* poller PID: reads the state letter of PID every millisecond and continues it when it is
 * stopped. Ends when PID does. */
#include "bench.h"

int main(int argc, char **argv)
{
	if (argc != 2)
		errno = EINVAL, die("read the arguments");
	char path[64], b[512];
	snprintf(path, sizeof path, "/proc/%s/task/%s/stat", argv[1], argv[1]);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		die("open the state");
	for (;; rest(1000000)) {
		ssize_t n = pread(fd, b, sizeof b - 1, 0);
		if (n <= 0)
			return 0;
		b[n] = 0;
		char *p = strrchr(b, ')');
		if (p && p[2] == 'T')
			kill(atoi(argv[1]), SIGCONT);
		else if (p && p[2] == 'Z')
			return 0;
	}
}
