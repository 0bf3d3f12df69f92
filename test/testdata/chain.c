/* A daemon that replaces itself, again and again: the old process names the new
   one and ends at once, while the new one says that it is ready. It ends with
   its standard input.
   chain ROUNDS */
#include "say.h"

/* Waits until the process is not our parent any more. */
static void outlive(pid_t old)
{
	while (getppid() == old)
		usleep(20);
}

int main(int argc, char **argv)
{
	long rounds = argc == 2 ? atol(argv[1]) : 0;
	char text[64], c;
	pid_t old = -1; /* 0 is a parent outside of the PID namespace */

	say_open();
	for (long k = 0;; k++) {
		struct pollfd in = {.fd = 0, .events = POLLIN};
		pid_t child;

		/* Speak while the old one is at work, after its end, or after its
		   words have been dealt with. */
		if (k % 3 == 1)
			outlive(old);
		if (k % 3 == 2) {
			outlive(old);
			barrier();
		}
		snprintf(text, sizeof text, "READY=1\nSTATUS=%ld", k);
		say(text);
		outlive(old);
		barrier();
		if (k == rounds || poll(&in, 1, 0) != 0)
			break;
		old = getpid();
		child = fork();
		if (child < 0)
			fail("fork");
		if (child > 0) {
			snprintf(text, sizeof text, "MAINPID=%d", (int)child);
			say(text);
			_exit(0);
		}
	}
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
