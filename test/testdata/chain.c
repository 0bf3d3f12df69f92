/* A daemon that replaces itself, again and again: the old process names the new
   one and ends at once, while the new one says that it is ready. It ends with
   its standard input.
   chain ROUNDS */
#include "say.h"

int main(int argc, char **argv)
{
	long rounds = argc == 2 ? atol(argv[1]) : 0;
	char text[64], c;

	say_open();
	for (long k = 0;; k++) {
		struct pollfd in = {.fd = 0, .events = POLLIN};
		pid_t old = getpid(), child;

		snprintf(text, sizeof text, "READY=1\nSTATUS=%ld", k);
		say(text);
		barrier();
		if (k == rounds || poll(&in, 1, 0) != 0)
			break;
		child = fork();
		if (child < 0)
			fail("fork");
		if (child > 0) {
			snprintf(text, sizeof text, "MAINPID=%d", (int)child);
			say(text);
			_exit(0);
		}
		/* Speak while the old one is at work, after its end, or after its
		   words have been dealt with. */
		if (k % 3 > 0)
			while (getppid() == old)
				usleep(20);
		if (k % 3 > 1)
			barrier();
	}
	while (read(0, &c, 1) > 0)
		;
	return 0;
}
