/* A daemon that stands in for one that is not installed.
   standin HOW [PIDFILE]
   HOW says how it tells that it is ready: notify, stop, simple, fork or daemon;
   with a PID file, the process in the background writes its number there. TERM,
   INT and QUIT end it with code 0. When they do, it makes the file that STANDIN_MARK
   names. */
#include <fcntl.h>
#include <signal.h>
#include "say.h"

static void background(const char *pidfile, int forks)
{
	int done[2];
	char c;

	if (pipe(done) < 0)
		fail("make a pipe");
	for (; forks > 0; forks--) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (child > 0) { /* the parent goes when all is set up */
			close(done[1]);
			if (read(done[0], &c, 1) < 0)
				fail("wait");
			_exit(0);
		}
		setsid();
	}
	if (pidfile) {
		FILE *f = fopen(pidfile, "w");

		if (!f || fprintf(f, "%d\n", getpid()) < 0 || fclose(f) != 0)
			fail("write the PID file");
	}
	close(done[1]);
	close(done[0]);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	sigset_t ends;
	int sig;

	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGQUIT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	if (getenv("STANDIN_MARK"))
		close(open(getenv("STANDIN_MARK"), O_WRONLY | O_CREAT, 0666));
	if (!strcmp(how, "fork"))
		background(argv[2], 1);
	else if (!strcmp(how, "daemon"))
		background(argv[2], 2);
	else if (!strcmp(how, "stop"))
		raise(SIGSTOP);
	else if (!strcmp(how, "notify")) {
		say_open();
		say("READY=1");
	} else if (strcmp(how, "simple")) {
		fprintf(stderr, "no such way: %s\n", how);
		return 1;
	}
	sigwait(&ends, &sig);
	return 0;
}
