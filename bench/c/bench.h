/* What the programs here share: the clock, addresses, and giving up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

static inline void die(const char *what)
{
	fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static inline int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void rest(int64_t ns)
{
	struct timespec t = { ns / 1000000000, ns % 1000000000 };
	nanosleep(&t, NULL);
}

static inline struct sockaddr_un at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof a.sun_path)
		errno = ENAMETOOLONG, die("use the address");
	strcpy(a.sun_path, path);
	return a;
}

/* A socket whose every send goes to path. */
static inline int notifier(const char *path)
{
	struct sockaddr_un a = at(path);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&a, sizeof a) < 0)
		die("connect to the notify socket");
	return fd;
}

static inline void say(int fd, const char *text)
{
	if (send(fd, text, strlen(text), 0) < 0)
		die("send");
}

/* BARRIER=1: returns once the receiver has closed the pipe, so has applied all before. */
static inline void barrier(int fd)
{
	int p[2];
	if (pipe2(p, O_CLOEXEC) < 0)
		die("make a pipe");
	union { struct cmsghdr h; char b[CMSG_SPACE(sizeof(int))]; } c = { 0 };
	struct iovec v = { "BARRIER=1", 9 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
	c.h.cmsg_level = SOL_SOCKET;
	c.h.cmsg_type = SCM_RIGHTS;
	c.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&c.h), &p[1], sizeof(int));
	if (sendmsg(fd, &m, 0) < 0)
		die("send BARRIER=1");
	close(p[1]);
	struct pollfd w = { .fd = p[0] };
	if (poll(&w, 1, 30000) != 1)
		errno = ETIMEDOUT, die("pass the barrier");
	close(p[0]);
}
