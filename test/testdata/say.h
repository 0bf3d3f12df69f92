/* What a small daemon without libsystemd needs to speak to NOTIFY_SOCKET. */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static int notify_fd = -1;

/* Connects once; credentials are taken at every send, so children may go on
   using the socket. */
static void say_open(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");

	if (!path || strlen(path) >= sizeof to.sun_path) {
		errno = EINVAL;
		fail("use NOTIFY_SOCKET");
	}
	strcpy(to.sun_path, path);
	if (path[0] == '@')
		to.sun_path[0] = 0;
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify_fd < 0 || connect(notify_fd, (void *)&to, offsetof(struct sockaddr_un, sun_path) + strlen(path)) < 0)
		fail("connect to NOTIFY_SOCKET");
}

static void say(const char *text)
{
	if (write(notify_fd, text, strlen(text)) < 0)
		fail("send");
}

/* Waits until all that was sent before has been dealt with. */
static inline void barrier(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec text = {"BARRIER=1", 9};
	struct msghdr m = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct pollfd hangup;
	int fds[2];

	if (pipe(fds) < 0)
		fail("make a pipe");
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fds[1], sizeof(int));
	if (sendmsg(notify_fd, &m, 0) < 0)
		fail("send a barrier");
	close(fds[1]);
	hangup = (struct pollfd){.fd = fds[0]};
	if (poll(&hangup, 1, 60 * 1000) != 1)
		fail("see the end of the barrier");
	close(fds[0]);
}
