/* A daemon that speaks by libsystemd. Each call must report that it has sent. */
#include <stdio.h>
#include <systemd/sd-daemon.h>

static int check(const char *what, int r) {
	if (r <= 0)
		fprintf(stderr, "%s: %d\n", what, r);
	return r <= 0;
}

int main(void) {
	int fds[] = {1, 2};

	return check("sd_notify", sd_notify(0, "READY=1\nSTATUS=up and running\n")) ||
	       check("sd_pid_notify_with_fds", sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=pair", fds, 2)) ||
	       check("sd_notify_barrier", sd_notify_barrier(0, 30 * 1000000ULL)) ||
	       check("sd_notifyf", sd_notifyf(1, "WATCHDOG=%d", 1));
}
