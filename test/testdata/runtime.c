/* A container runtime: it brings a process into a pod, which has no parent there
   and is still the runtime's, and called so, while it enters the container's
   cgroup and takes on its uid; then it waits until somebody writes to the gate (a
   fifo) and becomes the command. "-" is no cgroup and no gate. The process's
   number is the first line of the output.
   runtime POD CGROUP UID GATE COMMAND [ARG...] */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[4096];

static void must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "runtime: cannot %s: %s\n", what, strerror(errno));
	_exit(127);
}

static void enter(const char *pod, const char *ns, int type)
{
	int fd;

	snprintf(path, sizeof path, "/proc/%s/ns/%s", pod, ns);
	must((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0 && setns(fd, type) == 0, "enter the pod");
}

static void become(char **argv)
{
	char c;
	int fd, uid = atoi(argv[3]);

	must(prctl(PR_SET_NAME, "runc:[2:INIT]") == 0, "rename itself");
	if (strcmp(argv[2], "-")) {
		snprintf(path, sizeof path, "%s/cgroup.procs", argv[2]);
		must((fd = open(path, O_WRONLY | O_CLOEXEC)) >= 0 && write(fd, "0", 1) == 1, "enter the cgroup");
	}
	must(setgroups(0, 0) == 0 && setgid(uid) == 0 && setuid(uid) == 0, "change its uid");
	if (strcmp(argv[4], "-"))
		must((fd = open(argv[4], O_RDONLY | O_CLOEXEC)) >= 0 && read(fd, &c, 1) == 1, "pass the gate");
	execvp(argv[5], argv + 5);
	must(0, "execute the command");
}

int main(int argc, char **argv)
{
	int status;
	pid_t pid;

	if (argc < 6)
		return 127;
	enter(argv[1], "pid", CLONE_NEWPID);
	enter(argv[1], "mnt", CLONE_NEWNS);
	must(prctl(PR_SET_NAME, "runc:[1:CHILD]") == 0, "rename itself");
	must((pid = fork()) >= 0, "fork");
	if (pid == 0)
		become(argv);
	printf("%d\n", pid);
	fflush(stdout);
	must(waitpid(pid, &status, 0) == pid, "wait");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
