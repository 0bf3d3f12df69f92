/* A daemon that talks by libsystemd, as most do.
   The first instance stores a file called "state", each later one has it handed
   to it. It says what it was told, on one line, when it is ready, and then pings
   its watchdog until SIGTERM. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static int sure(int r, const char *what)
{
	if (r > 0)
		return r;
	fprintf(stderr, "cannot %s: %s\n", what, r < 0 ? strerror(-r) : "NOTIFY_SOCKET is not set");
	exit(2);
}

int main(void)
{
	uint64_t usec = 0;
	char **names = 0, text[16] = "";
	int n, fd;

	/* What is checked is that WATCHDOG_PID, LISTEN_PID and so on mean us. */
	if (sd_watchdog_enabled(0, &usec) < 0 || (n = sd_listen_fds_with_names(0, &names)) < 0)
		return 3;
	sure(sd_notifyf(0, "STATUS=%s %d", "process", (int)getpid()), "send STATUS");
	if (n == 0) {
		fd = memfd_create("state", MFD_CLOEXEC);
		if (fd < 0 || write(fd, "kept", 4) != 4)
			return 4;
		sure(sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=state", &fd, 1), "store a file");
	} else if (pread(SD_LISTEN_FDS_START, text, sizeof text - 1, 0) < 0) {
		return 5;
	}
	/* With our own number in the credentials, by whatever way it takes. */
	sure(sd_pid_notifyf(getpid(), 0, "READY=1\nMAINPID=%d", (int)getpid()), "send READY=1");
	sure(sd_notify_barrier(0, 60 * 1000000ULL), "pass the barrier");
	printf("watchdog %" PRIu64 " handed %d %s %s\n", usec, n, n > 0 ? names[0] : "-", n > 0 ? text : "-");
	fflush(stdout);
	for (;;) {
		usleep(usec ? usec / 4 : 100000);
		sure(sd_notify(0, "WATCHDOG=1"), "ping");
	}
}
