/* ready WHAT PORT PATH NOTIFY-SOCKET COUNT: how long until a probe says yes, in
 * nanoseconds, a line each. WHAT:
 *   get      one GET over a new connection, nothing else
 *   flip     RELOADING=1, seen by a probe; then READY=1 until a probe says 200
 *   barrier  the same, but READY=1 and BARRIER=1, and then one probe
 *   first    READY=1 for the first time, once (COUNT is not looked at)
 *   once     one GET of a new process, COUNT is not looked at
 * After the time: how many probes it took. */
#include "bench.h"

static struct sockaddr_in server = { .sin_family = AF_INET };
static char request[256];

/* One probe as kubelet sends them: a new connection, one answer. */
static int get(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&server, sizeof server) < 0)
		die("connect to the probe port");
	if (send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		die("send a request");
	char b[4096];
	size_t have = 0;
	for (;;) {
		ssize_t n = read(fd, b + have, sizeof b - 1 - have);
		if (n <= 0)
			break;
		have += n;
		b[have] = 0;
		char *body = strstr(b, "\r\n\r\n"), *len = strstr(b, "Content-Length: ");
		if (body && len && have >= (size_t)(body + 4 - b) + atoi(len + 16))
			break;
	}
	close(fd);
	if (have < 12)
		errno = EPROTO, die("read an answer");
	return atoi(b + 9);
}

static void until(int code)
{
	for (int64_t end = now() + 60000000000LL; get() != code; rest(2000000))
		if (now() > end)
			errno = ETIMEDOUT, die("see the answer change");
}

/* Between two measurements: not in step with what a server does later. */
static void pause_a_while(void)
{
	rest(1000000 + now() % 2000003);
}

static void report(int64_t begin, int probes)
{
	printf("%lld %d\n", (long long)(now() - begin), probes);
	fflush(stdout);
}

static void flip(int fd, int with_barrier)
{
	char b[96];
	snprintf(b, sizeof b, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now() / 1000);
	say(fd, b);
	barrier(fd);
	until(503);
	pause_a_while();
	int64_t begin = now();
	say(fd, "READY=1");
	if (with_barrier)
		barrier(fd);
	int probes = 1;
	while (get() != 200)
		probes++;
	report(begin, probes);
}

int main(int argc, char **argv)
{
	if (argc != 6)
		errno = EINVAL, die("read the arguments");
	const char *what = argv[1];
	int count = atoi(argv[5]);
	server.sin_port = htons(atoi(argv[2]));
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\r\n", argv[3]);
	if (!strcmp(what, "get")) {
		for (int i = 0; i < count; i++) {
			pause_a_while();
			int64_t begin = now();
			if (get() != 200)
				errno = EPROTO, die("get 200");
			report(begin, 1);
		}
	} else if (!strcmp(what, "first") || !strcmp(what, "once")) {
		rest(5000000); /* a daemon takes its time to start */
		int fd = notifier(argv[4]), probes = 1;
		int64_t begin = now();
		if (!strcmp(what, "first"))
			say(fd, "READY=1");
		while (get() != 200)
			probes++;
		report(begin, probes);
	} else {
		int fd = notifier(argv[4]);
		say(fd, "READY=1");
		barrier(fd);
		for (int i = 0; i < count; i++)
			flip(fd, !strcmp(what, "barrier"));
	}
	return 0;
}
