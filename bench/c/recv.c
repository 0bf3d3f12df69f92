/* recv [-p] PATH: the tight loop. Receives notify messages as fast as the kernel hands
 * them out, checks who sent them and keeps what they say. -p: by pidfd as well. */
#include "bench.h"

static char status[4097];
static unsigned long pings;
static int phase;

static void apply(char *b, char *end)
{
	while (b < end) {
		char *nl = memchr(b, '\n', end - b);
		if (!nl)
			nl = end;
		if (nl - b > 7 && !memcmp(b, "STATUS=", 7)) {
			memcpy(status, b + 7, nl - b - 7);
			status[nl - b - 7] = 0;
		} else if (nl - b == 10 && !memcmp(b, "WATCHDOG=1", 10))
			pings++;
		else if (nl - b == 7 && !memcmp(b, "READY=1", 7))
			phase = 1;
		else if (nl - b == 11 && !memcmp(b, "RELOADING=1", 11))
			phase = 2;
		b = nl + 1;
	}
}

int main(int argc, char **argv)
{
	int pidfds = argc > 1 && !strcmp(argv[1], "-p");
	struct sockaddr_un a = at(argv[argc - 1]);
	int one = 1, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) < 0 ||
	    (pidfds && setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one) < 0))
		die("set the options of the socket");
	if (bind(fd, (void *)&a, sizeof a) < 0)
		die("bind");
	static char b[4096];
	union { struct cmsghdr h; char b[1200]; } c;
	pid_t known = 0;
	for (;;) {
		struct iovec v = { b, sizeof b };
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
		ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
		if (n < 0)
			die("receive");
		struct ucred who = { 0 };
		int pidfd = -1, rights[253], have = 0;
		for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
			if (h->cmsg_level != SOL_SOCKET)
				continue;
			if (h->cmsg_type == SCM_CREDENTIALS)
				memcpy(&who, CMSG_DATA(h), sizeof who);
			else if (h->cmsg_type == SCM_PIDFD)
				memcpy(&pidfd, CMSG_DATA(h), sizeof pidfd);
			else if (h->cmsg_type == SCM_RIGHTS) {
				have = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
				memcpy(rights, CMSG_DATA(h), have * sizeof(int));
			}
		}
		if (who.pid > 0 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
			if (who.pid != known)
				known = who.pid;
			apply(b, b + n);
		}
		if (pidfd >= 0)
			close(pidfd);
		while (have > 0)
			close(rights[--have]);
	}
}
