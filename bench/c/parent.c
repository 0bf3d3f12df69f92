/* parent COUNT CMD...: starts CMD again and again and continues it when it stops: the
 * shortest way there is. */
#include "bench.h"

int main(int argc, char **argv)
{
	if (argc < 3)
		errno = EINVAL, die("read the arguments");
	for (int i = 0, count = atoi(argv[1]); i < count; i++) {
		pid_t pid = vfork();
		if (pid == 0) {
			execv(argv[2], argv + 2);
			_exit(127);
		}
		for (siginfo_t si; pid > 0;) {
			if (waitid(P_PID, pid, &si, WSTOPPED | WEXITED) < 0)
				die("wait");
			if (si.si_code != CLD_STOPPED)
				break;
			kill(pid, SIGCONT);
		}
	}
	return 0;
}
