/* Uses the few numbers of a PID namespace up again and again. A helper names
   targets as the main process; a stranger gets the number of a target that has
   ended. Every process that ends tells its parent which signal it got.

   Commands on standard input, a socket, each answered there by a line:
     t  a new target, named by the helper, and seen to be
     w  waits for the target's end: by which signal
     k  kills the target and gives its number to a stranger; the answer is n if
        somebody else was faster: a thread of podnotify's, say
     r  like t and k at once, nobody waits; the name says which process it means
     e  ends the stranger: by which signal */
#include "say.h"
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char *name; /* argv[0]: what select.process looks at */
static int to_helper[2], from_helper[2];

static void call(const char *what) { strcpy(name, what); }

/* A process that waits for a signal. It has its name when this returns. */
static pid_t process(const char *what)
{
	int fds[2];
	char c;
	pid_t pid;

	if (pipe(fds) < 0)
		fail("make a pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		call(what);
		if (write(fds[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	if (read(fds[0], &c, 1) != 1)
		fail("see a process begin");
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static int ended(pid_t pid);

static int choose; /* numbers are chosen, not waited for */

/* The next process gets this number, if it is free. */
static void next(pid_t number)
{
	FILE *last = fopen("/proc/sys/kernel/ns_last_pid", "w");

	if (!last || fprintf(last, "%d", number - 1) < 0 || fclose(last) < 0)
		fail("set ns_last_pid");
}

/* A process with a number, 0 if somebody else has got it. */
static pid_t take(pid_t number)
{
	for (;;) {
		pid_t pid;

		if (choose)
			next(number);
		pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid == 0 && getpid() != number)
			_exit(0);
		if (pid == 0) {
			call("strang");
			for (;;)
				pause();
		}
		if (pid == number)
			return pid;
		if (ended(pid) > 0)
			fail("see a process end by itself");
		if (kill(number, 0) == 0 || errno != ESRCH)
			return 0;
	}
}

static int ended(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		fail("wait");
	return WIFSIGNALED(status) ? WTERMSIG(status) : -1;
}

static int stop(pid_t pid)
{
	kill(pid, SIGKILL);
	return ended(pid);
}

/* The inode of a process's pidfd, which no two processes share. */
static unsigned long inode(pid_t pid)
{
	struct stat st;
	int fd = syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0 || fstat(fd, &st) < 0)
		fail("open a pidfd");
	close(fd);
	return st.st_ino;
}

/* The helper says what it is told; a leading ! wants it dealt with. */
static void helper(void)
{
	char text[256];
	ssize_t n;

	call("daemon");
	signal(SIGUSR1, SIG_IGN); /* it is the main process while nobody else is */
	while ((n = read(to_helper[0], text, sizeof text - 1)) > 0) {
		text[n] = 0;
		if (text[0] == '!') {
			say(text + 1);
			barrier();
		} else {
			say(text);
		}
		if (write(from_helper[1], "", 1) != 1)
			exit(1);
	}
	exit(0);
}

static void tell(const char *text)
{
	char c;

	if (write(to_helper[1], text, strlen(text)) < 0 || read(from_helper[0], &c, 1) != 1)
		fail("tell the helper");
}

int main(int argc, char **argv)
{
	char text[256], command;
	pid_t target = 0, stranger = 0, first;

	name = argv[0];
	say_open();
	dup2(0, 1); /* answers go where commands come from */
	choose = getenv("CHOOSE") != NULL;
	if (argc > 1) { /* in a namespace below, with this many numbers */
		if (unshare(CLONE_NEWPID) < 0)
			fail("make a PID namespace");
		first = fork();
		if (first < 0)
			fail("fork");
		if (first > 0)
			return ended(first) != -1;
		FILE *max = choose ? NULL : fopen("/proc/sys/kernel/pid_max", "w");
		if (!choose && (!max || fputs(argv[1], max) < 0 || fclose(max) < 0))
			fail("set pid_max");
	}
	while (!choose) { /* the first 300 numbers come once only */
		first = fork();
		if (first < 0)
			fail("fork");
		if (first == 0)
			_exit(0);
		ended(first);
		if (first >= 300)
			break;
	}
	if (pipe(to_helper) < 0 || pipe(from_helper) < 0)
		fail("make a pipe");
	first = fork();
	if (first < 0)
		fail("fork");
	if (first == 0) {
		close(to_helper[1]);
		helper();
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (read(0, &command, 1) == 1) {
		switch (command) {
		case 't':
			target = process("daemon");
			snprintf(text, sizeof text, "!MAINPID=%d\nREADY=1", target);
			tell(text);
			printf("t %d\n", target);
			break;
		case 'w':
			printf("w %d\n", ended(target));
			break;
		case 'r':
			target = process("daemon");
			snprintf(text, sizeof text, "MAINPID=%d\nMAINPIDFDID=%lu\nREADY=1", target, inode(target));
			tell(text);
			/* fall through */
		case 'k':
			stop(target);
			stranger = take(target);
			puts(stranger ? "k" : "n");
			break;
		case 'e':
			printf("e %d\n", stop(stranger));
			break;
		}
	}
	return 0;
}
