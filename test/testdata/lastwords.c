/* Daemons that say something and are dead before anyone can have read it.
   lastwords       for every byte read, starts "lastwords-daemon K" and waits for its end
   then the daemon says that it is ready, and at the next byte its last words */
#include <signal.h>
#include <sys/wait.h>

#include "say.h"

static int daemon_of(const char *k)
{
	char text[64], c;

	say_open();
	snprintf(text, sizeof text, "READY=1\nSTATUS=up %s", k);
	say(text);
	if (read(0, &c, 1) != 1)
		return 0;
	snprintf(text, sizeof text, "STATUS=last words %s\nERRNO=5", k);
	say(text);
	kill(getpid(), SIGKILL);
	return 1;
}

int main(int argc, char **argv)
{
	char k[32], c;

	if (argc == 2)
		return daemon_of(argv[1]);
	for (long n = 0; read(0, &c, 1) == 1; n++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			snprintf(k, sizeof k, "%ld", n);
			execl("/proc/self/exe", "lastwords-daemon", k, (char *)0);
			fail("exec");
		}
		while (waitpid(pid, 0, 0) < 0)
			if (errno != EINTR)
				fail("wait");
	}
	return 0;
}
