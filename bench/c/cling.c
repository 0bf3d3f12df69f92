/* cling PORT COUNT: so many clients that hold a connection each for as long as they can,
 * and then, a moment later, another one. They say nothing, drip a request, its headers or
 * a body, ask without ever reading, or send large headers. For ever; each thousand
 * connections are a line on standard error. */
#include "bench.h"
#include <sys/resource.h>

#define MS 1000000LL

static struct client {
	int fd, kind;
	int64_t next; /* when it does something */
} *clients;

static const char *const prologue[] = { "", "", "GET /readyz HTTP/1.1\r\nHost: x\r\n", "GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", "",
	"GET /readyz HTTP/1.1\r\nX-Large: " };
static const char *const drop[] = { NULL, "G", "X-Slow: 1\r\n", "x", "GET /statusz HTTP/1.1\r\nHost: x\r\n\r\n", NULL };

static int64_t between(int least, int most) { return (least + rand() % (most - least)) * MS; }

static void begin(struct client *c, int port)
{
	static long opened;
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	static char large[64 << 10];
	c->kind = rand() % 6;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || bind(c->fd, (void *)&from, sizeof from) < 0)
		die("make a socket");
	if (connect(c->fd, (void *)&to, sizeof to) < 0)
		die("connect to the probe port");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	send(c->fd, prologue[c->kind], strlen(prologue[c->kind]), MSG_NOSIGNAL);
	if (c->kind == 5) {
		memset(large, 'x', sizeof large);
		send(c->fd, large, sizeof large, MSG_NOSIGNAL);
	}
	if (++opened % 1000 == 0)
		fprintf(stderr, "%ld\n", opened);
}

/* Reports whether the connection is still there. */
static int hold(struct client *c)
{
	char b[4096];
	if (drop[c->kind])
		return send(c->fd, drop[c->kind], strlen(drop[c->kind]), MSG_NOSIGNAL) >= 0 || errno == EAGAIN;
	ssize_t n;
	while ((n = recv(c->fd, b, sizeof b, 0)) > 0)
		;
	return n < 0 && errno == EAGAIN;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		errno = EINVAL, die("read the arguments");
	int port = atoi(argv[1]), count = atoi(argv[2]);
	struct rlimit files = { count + 100, count + 100 };
	if (setrlimit(RLIMIT_NOFILE, &files) < 0 || !(clients = calloc(count, sizeof *clients)))
		die("have so many clients");
	for (int i = 0; i < count; i++)
		clients[i] = (struct client){ .fd = -1, .next = now() + between(0, 1000) };
	for (;; rest(MS)) {
		int64_t t = now();
		for (struct client *c = clients; c < clients + count; c++) {
			if (t < c->next)
				continue;
			if (c->fd < 0)
				begin(c, port);
			else if (!hold(c)) {
				close(c->fd);
				c->fd = -1;
				c->next = t + between(100, 1000);
				continue;
			}
			c->next = t + between(50, 150);
		}
	}
}
