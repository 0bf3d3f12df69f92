/* A daemon that asks podnotify about itself. After sd_notify_barrier() has
   returned, the very next question must be answered by what was said before.
   barrier NAME ROUNDS; then "ADDRESS PORT" on standard input. It says how many
   answers were wrong, and ends with its standard input. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

static int http = -1, wrong;
static char answer[64 * 1024];

static void fail(const char *what)
{
	fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
	exit(2);
}

/* Asks on a connection that is kept open, so that no time is lost. Returns the
   status code; answer holds the head and the body. */
static int get(const char *page, const char *name)
{
	char ask[256], *body, *length;
	size_t n = 0, want = 0;

	snprintf(ask, sizeof ask, "GET %s/%s HTTP/1.1\r\nHost: test\r\n\r\n", page, name);
	if (write(http, ask, strlen(ask)) != (ssize_t)strlen(ask))
		fail("ask");
	for (;;) {
		ssize_t r = read(http, answer + n, sizeof answer - 1 - n);

		if (r <= 0)
			fail("read the answer");
		answer[n += r] = 0;
		if (!want && (body = strstr(answer, "\r\n\r\n")) && (length = strcasestr(answer, "\nContent-Length:")))
			want = body + 4 - answer + strtoul(length + 16, 0, 10);
		if (want && n >= want)
			break;
	}
	return atoi(answer + strlen("HTTP/1.1 "));
}

static void tell(const char *format, ...)
{
	char text[128];
	va_list args;
	int r;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if ((r = sd_notify(0, text)) <= 0) {
		errno = -r;
		fail("notify");
	}
	if ((r = sd_notify_barrier(0, 60 * 1000000ULL)) <= 0) {
		errno = -r;
		fail("pass the barrier");
	}
}

static void expect(long i, const char *page, const char *name, int code, const char *text)
{
	int got = get(page, name);

	if (got == code && strstr(answer, text))
		return;
	if (++wrong <= 3)
		fprintf(stderr, "round %ld: GET %s is %d, want %d with '%s':\n%s\n", i, page, got, code, text, answer);
}

int main(int argc, char **argv)
{
	const char *name = argc == 3 ? argv[1] : "";
	long rounds = argc == 3 ? atol(argv[2]) : 0;
	struct sockaddr_in to = {.sin_family = AF_INET};
	char host[64], text[64], c;
	int port, yes = 1;

	if (scanf("%63s %d", host, &port) != 2)
		return 0; /* the test has ended */
	to.sin_port = htons(port);
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
		fail("use the address");
	http = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (http < 0 || connect(http, (void *)&to, sizeof to) < 0)
		fail("connect");
	setsockopt(http, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);

	tell("READY=1");
	expect(-1, "/readyz", name, 200, "ok");
	for (long i = 0; i < rounds; i++) {
		tell("STATUS=%ld", i);
		snprintf(text, sizeof text, "\"status\":\"%ld\"", i);
		expect(i, "/statusz", name, 200, text);
		tell("RELOADING=1");
		expect(i, "/readyz", name, 503, "reload");
		tell("READY=1");
		expect(i, "/readyz", name, 200, "ok");
	}
	printf("%ld rounds, %d wrong\n", rounds, wrong);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
	return wrong > 0;
}
