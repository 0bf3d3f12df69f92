/* A TCP server that stores its listening socket with its manager, so that no
   connection is lost when it is started again.
   keeper PORT     answers every connection with its number, until SIGTERM */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void term(int sig)
{
	(void)sig;
	over = 1;
}

static void fail(const char *what)
{
	fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
	exit(2);
}

static int fresh(int port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (void *)&at, sizeof at) < 0 || listen(fd, 128) < 0)
		fail("listen");
	if (sd_pid_notify_with_fds(0, 0, "FDSTORE=1\nFDNAME=front", &fd, 1) <= 0)
		fail("store the socket");
	return fd;
}

static void serve(int fd)
{
	char text[32];
	int n, c = accept(fd, 0, 0);

	if (c < 0)
		return;
	n = snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (read(c, text + 16, 1) == 1 && write(c, text, n) != n)
		fail("answer");
	close(c);
}

int main(int argc, char **argv)
{
	struct pollfd p = {.events = POLLIN};
	struct sigaction act = {.sa_handler = term};
	sigset_t without, with;
	char **names = 0;
	int n;

	sigemptyset(&without);
	sigaddset(&without, SIGTERM);
	sigprocmask(SIG_BLOCK, &without, &with);
	sigdelset(&with, SIGTERM);
	sigaction(SIGTERM, &act, 0);

	n = sd_listen_fds_with_names(1, &names);
	if (n < 0 || n > 1 || (n == 1 && (strcmp(names[0], "front") || sd_is_socket_inet(SD_LISTEN_FDS_START, AF_INET, SOCK_STREAM, 1, atoi(argv[1])) <= 0))) {
		fprintf(stderr, "%d descriptors, the first is called %s\n", n, n > 0 ? names[0] : "-");
		return 3;
	}
	if (argc != 2)
		return 2;
	p.fd = n == 1 ? SD_LISTEN_FDS_START : fresh(atoi(argv[1]));
	printf("%s\n", n == 1 ? "handed" : "fresh");
	fflush(stdout);
	if (sd_notify(0, "READY=1") <= 0)
		fail("say READY=1");
	while (!over)
		if (ppoll(&p, 1, 0, &with) > 0)
			serve(p.fd);
	sd_notify(0, "STOPPING=1");
	return 0;
}
