// A daemon of many threads. It says READY=1 or stops itself, from a thread that
// does not lead the process; with "dead" its leading thread has ended by then.
//
//	threads dead|alive notify|stop
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int dead, stops;

static void *idle(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

// The leader is Z in its own stat file once it has ended.
static int leader_is_dead(void)
{
	char line[512], *letter;
	FILE *f = fopen("/proc/self/stat", "r");
	if (!f)
		abort();
	size_t n = fread(line, 1, sizeof line - 1, f);
	fclose(f);
	line[n] = 0;
	letter = strrchr(line, ')');
	return letter && letter[2] == 'Z';
}

static void *speak(void *unused)
{
	(void)unused;
	while (dead && !leader_is_dead())
		usleep(1000);
	if (stops) {
		kill(getpid(), SIGSTOP);
	} else {
		struct sockaddr_un to = { .sun_family = AF_UNIX };
		const char *path = getenv("NOTIFY_SOCKET");
		int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || !path || strlen(path) >= sizeof to.sun_path)
			abort();
		strcpy(to.sun_path, path);
		if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to, sizeof to) != 7)
			abort();
		close(fd);
	}
	return idle(NULL);
}

int main(int argc, char **argv)
{
	pthread_t t;
	if (argc != 3)
		return 2;
	dead = !strcmp(argv[1], "dead");
	stops = !strcmp(argv[2], "stop");
	for (int i = 0; i < 16; i++)
		if (pthread_create(&t, NULL, idle, NULL))
			return 1;
	if (pthread_create(&t, NULL, speak, NULL))
		return 1;
	if (dead)
		pthread_exit(NULL);
	return idle(NULL) != NULL;
}
