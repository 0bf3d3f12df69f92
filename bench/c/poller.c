/* poller US PID...: reads the state letters of all PIDs every US microseconds and continues
 * who is stopped. Ends when they have. */
#include "bench.h"

int main(int argc, char **argv)
{
	if (argc < 3)
		errno = EINVAL, die("read the arguments");
	int64_t pace = atoll(argv[1]) * 1000;
	int n = argc - 2, left = n, fds[n];
	for (int i = 0; i < n; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%s/task/%s/stat", argv[i + 2], argv[i + 2]);
		if ((fds[i] = open(path, O_RDONLY)) < 0)
			die("open the state");
	}
	for (; left > 0; rest(pace))
		for (int i = 0; i < n; i++) {
			char b[512];
			if (fds[i] < 0)
				continue;
			ssize_t got = pread(fds[i], b, sizeof b - 1, 0);
			b[got > 0 ? got : 0] = 0;
			char *p = strrchr(b, ')');
			if (p && p[2] == 'T')
				kill(atoi(argv[i + 2]), SIGCONT);
			else if (!p || p[2] == 'Z')
				close(fds[i]), fds[i] = -1, left--;
		}
	return 0;
}
