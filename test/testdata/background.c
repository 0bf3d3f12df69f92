/* A daemon that goes into the background.
   background FORKS [PIDFILE]
   forks so many times, each parent exiting at once with code 0, writes its number
   into the PID file and waits for SIGTERM: then it ends with code 7. On HUP it
   writes "HUP" to standard output. With FORKS 0 it stays in the foreground. With
   a minus before FORKS each parent waits until the daemon is set up, as careful
   ones do. With = before it, each parent but the last waits for the end of its
   child (libdaemon's daemon_fork). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static void hup(int sig)
{
	(void)sig;
	if (write(1, "HUP\n", 4) < 0)
		_exit(2);
}

static void term(int sig)
{
	(void)sig;
	_exit(7);
}

int main(int argc, char **argv)
{
	int careful = argv[1][0] == '-', waits = argv[1][0] == '=', up[2] = {-1, -1};
	int forks = atoi(argv[1] + (careful || waits));

	signal(SIGHUP, hup);
	signal(SIGTERM, term);
	if (pipe(up) < 0)
		fail("make a pipe");
	for (int i = 0; i < forks; i++) {
		pid_t pid = fork();
		char c;

		if (pid < 0)
			fail("fork");
		if (pid > 0) {
			close(up[1]);
			if (waits && i < forks - 1)
				while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
					;
			if (careful)
				while (read(up[0], &c, 1) < 0 && errno == EINTR)
					;
			_exit(0);
		}
		if (i == 0)
			setsid();
	}
	if (argc > 2) {
		FILE *f = fopen(argv[2], "w");

		if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f))
			fail("write the PID file");
	}
	close(up[0]);
	close(up[1]);
	for (;;)
		pause();
}
