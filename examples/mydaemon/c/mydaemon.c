/*
 * mydaemon - one small daemon, all three habits of saying "I am ready".
 *
 *   UPSTART_JOB is set     it stops itself with SIGSTOP and waits for SIGCONT (upstart, expect stop)
 *   NOTIFY_SOCKET is set   it sends one datagram, "READY=1..." (systemd, Type=notify)
 *   neither                it goes to the background and writes a PID file (the traditional way)
 *
 * With both set it stops itself and sends nothing, as most daemons do. One rule holds for all three:
 * listen first, say ready afterwards, so that whoever hears "ready" may connect at once.
 *
 * It answers every TCP connection with one line, "mydaemon pid N generation G". SIGHUP reloads the
 * greeting (the first word), SIGTERM ends it. ../go/main.go is the same program in Go.
 */
#define _POSIX_C_SOURCE 200809L

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *address = "127.0.0.1:7070"; /* -l */
static const char *greeting_file;              /* -g; none: the greeting is "mydaemon" */
static char pidfile[PATH_MAX - 8];             /* -p; leaves room for the suffix of the temporary name */

static int listener;
static char greeting[128] = "mydaemon";
static unsigned generation = 1; /* counts the greetings loaded */

static struct {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un to;
    socklen_t to_len;
} supervisor = {.fd = -1};
static char ready[64];           /* written once at start: saying ready must not depend on memory */
static uint64_t watchdog_period; /* microseconds between pings; 0: nobody asked for pings */

/* notify sends one datagram, if there is a supervisor. A failure is reported and otherwise ignored: a
 * daemon must not end because nobody listens to it. Unless flags has MSG_DONTWAIT, the call waits
 * while the receiver's queue is full, so nothing is lost. */
static void notify(const char *message, int flags)
{
    if (supervisor.fd >= 0 && sendto(supervisor.fd, message, strlen(message), flags,
                                     (struct sockaddr *)&supervisor.to, supervisor.to_len) < 0)
        fprintf(stderr, "mydaemon: cannot notify the supervisor: %s\n", strerror(errno));
}

/* fail reports a fatal failure, text and number in one datagram so that nobody sees one alone, and exits. */
static _Noreturn void fail(int err, const char *format, ...)
{
    static char text[512], message[768];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "mydaemon: %s: %s\n", text, strerror(err));
    snprintf(message, sizeof message, "STATUS=%s: %s\nERRNO=%d\n", text, strerror(err), err);
    notify(message, 0);
    exit(1);
}

/* notify_open prepares socket, address and message. The socket stays unconnected: a connected one would
 * be refused for ever once the supervisor had bound its address anew. An address we cannot use
 * leaves us silent but serving. */
static void notify_open(const char *path)
{
    size_t n = strlen(path);
    int abstract = path[0] == '@'; /* a name without a file; '@' stands for a leading NUL */

    /* A path is followed by a NUL, an abstract name is not: its length says where it ends. */
    if ((path[0] != '/' && !abstract) || n + !abstract > sizeof supervisor.to.sun_path) {
        fprintf(stderr, "mydaemon: cannot use NOTIFY_SOCKET: %s is neither /path nor @name, or too long\n", path);
        return;
    }
    supervisor.to.sun_family = AF_UNIX;
    memcpy(supervisor.to.sun_path, path, n);
    if (abstract)
        supervisor.to.sun_path[0] = '\0';
    supervisor.to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + !abstract);
    if ((supervisor.fd = socket(AF_UNIX, SOCK_DGRAM, 0)) < 0)
        fail(errno, "cannot create the notification socket");
    snprintf(ready, sizeof ready, "READY=1\nSTATUS=ready\nMAINPID=%ld\n", (long)getpid());
}

/* watchdog_open takes half of WATCHDOG_USEC, the longest silence the supervisor accepts. WATCHDOG_PID, if
 * set, says which process is meant: the variables may have been inherited from a parent. */
static void watchdog_open(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

    if (!usec || usec[0] < '0' || usec[0] > '9' || (pid && *pid && atol(pid) != (long)getpid()))
        return;
    char *end;
    uint64_t n = strtoull(usec, &end, 10);
    if (*end == '\0' && n < UINT64_MAX) /* the largest number is systemd's "infinity" */
        watchdog_period = n / 2 + n % 2;
}

/* now is CLOCK_MONOTONIC in microseconds, the clock MONOTONIC_USEC is defined by. */
static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* stop_self stops this process. The supervisor sees that, takes it for "ready" and sends SIGCONT; only
 * then does raise return. The variable is unset so that no child of ours inherits it and stops
 * too. (The kernel ignores the stop if we are PID 1 of our namespace.) */
static void stop_self(void)
{
    raise(SIGSTOP);
    unsetenv("UPSTART_JOB");
}

static void remove_pidfile(void)
{
    unlink(pidfile);
}

/* write_pidfile writes a temporary file and renames it: no reader ever sees half a number. */
static void write_pidfile(void)
{
    static char temp[PATH_MAX];

    snprintf(temp, sizeof temp, "%s.XXXXXX", pidfile);
    int fd = mkstemp(temp);
    if (fd < 0)
        fail(errno, "cannot create PID file %s (-p names another)", pidfile);
    if (dprintf(fd, "%ld\n", (long)getpid()) < 0 || fchmod(fd, 0644) < 0 || rename(temp, pidfile) < 0) {
        int err = errno;
        unlink(temp);
        fail(err, "cannot write PID file %s (-p names another)", pidfile);
    }
    close(fd);
    atexit(remove_pidfile);
}

/* daemonize returns in the daemon only. The parent waits at a pipe and exits 0 once the daemon writes to
 * it, or 1 if it closes unwritten: when the command returns, the daemon serves and its PID file
 * is there. setsid leaves the terminal; after the second fork we are no session leader, and so
 * can never acquire one again. The working directory stays, as -p and -g may be relative. */
static void daemonize(const sigset_t *signals)
{
    int ends[2];
    pid_t pid;
    char byte = 0;

    if (pipe(ends) < 0 || (pid = fork()) < 0)
        fail(errno, "cannot fork");
    if (pid > 0) {
        sigprocmask(SIG_UNBLOCK, signals, NULL);
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) == 1 ? 0 : 1);
    }
    if (setsid() < 0 || (pid = fork()) < 0)
        fail(errno, "cannot fork");
    if (pid > 0)
        _exit(0);

    write_pidfile();
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        fail(errno, "cannot open /dev/null");
    close(null);
    if (write(ends[1], &byte, 1) == 1) /* else the parent was killed: serve all the same */
        close(ends[0]);
    close(ends[1]);
}

/* listen_on binds a numeric IPv4 address, such as 192.0.2.1:7070, and listens. */
static void listen_on(const char *where)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    char host[INET_ADDRSTRLEN], rest;
    unsigned port;
    int on = 1;

    if (sscanf(where, "%15[0-9.]:%5u%c", host, &port, &rest) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &in.sin_addr) != 1)
        fail(EINVAL, "cannot listen on %s (want ADDRESS:PORT in numbers)", where);
    in.sin_port = htons((in_port_t)port);

    /* Non-blocking: a client may be gone again between poll and accept. */
    if ((listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&in, sizeof in) < 0 || listen(listener, SOMAXCONN) < 0)
        fail(errno, "cannot listen on %s", where);
}

/* load_greeting reads the first line of the file. It returns 0, or an errno and the old greeting stays. */
static int load_greeting(void)
{
    char line[sizeof greeting];

    if (!greeting_file)
        return 0;
    FILE *f = fopen(greeting_file, "r");
    if (!f)
        return errno;
    int err = fgets(line, sizeof line, f) ? 0 : ferror(f) ? errno : ENODATA;
    if (err == 0)
        snprintf(greeting, sizeof greeting, "%.*s", (int)strcspn(line, "\n"), line);
    fclose(f);
    return err;
}

/* reload says when it begins, works, and always says READY=1 again: the supervisor waits for that. By the
 * time systemd (Type=notify-reload) tells this reload from an earlier one. */
static void reload(void)
{
    static char message[768];
    int err;

    snprintf(message, sizeof message, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\n", now());
    notify(message, 0);
    if ((err = load_greeting()) == 0)
        generation++;
    else
        snprintf(message, sizeof message, "READY=1\nSTATUS=cannot read %.512s: %s; the old greeting stays\n",
                 greeting_file, strerror(err));
    notify(err == 0 ? ready : message, 0);
}

static void answer(void)
{
    int client = accept(listener, NULL, NULL);

    if (client >= 0) {
        dprintf(client, "%s pid %ld generation %u\n", greeting, (long)getpid(), generation);
        close(client);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        fail(errno, "cannot accept a client");
    } /* else there was none, or it is gone again */
}

/* serve answers, reloads and pings in one loop: a ping proves that it turns. It returns on SIGTERM or SIGINT. */
static void serve(const sigset_t *signals)
{
    /* A descriptor, not handlers: signals wait their turn like everything else, and nothing is interrupted. */
    int signal_fd = signalfd(-1, signals, SFD_NONBLOCK);
    struct pollfd p[] = {{.fd = listener, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    struct signalfd_siginfo signal;
    uint64_t next_ping = now() + watchdog_period;

    if (signal_fd < 0)
        fail(errno, "cannot open a signal descriptor");
    for (;;) {
        int wait = -1; /* milliseconds, rounded up; -1: for ever */

        if (watchdog_period > 0) {
            uint64_t t = now();
            if (t >= next_ping) {
                notify("WATCHDOG=1\n", MSG_DONTWAIT); /* one may be lost: half the interval allows for it */
                next_ping = t + watchdog_period;
            }
            t = (next_ping - t + 999) / 1000;
            wait = t < INT_MAX ? (int)t : INT_MAX;
        }
        if (poll(p, 2, wait) < 0 && errno != EINTR) /* EINTR: we were stopped and continued */
            fail(errno, "cannot wait for clients");
        while (read(signal_fd, &signal, sizeof signal) == sizeof signal) {
            if (signal.ssi_signo != SIGHUP)
                return;
            reload();
        }
        answer();
    }
}

/* options reads the command line. The default PID file is in $XDG_RUNTIME_DIR or /run, where no other
 * user can put files; in /tmp anyone could be there first. */
static void options(int argc, char **argv)
{
    const char *path = getenv("MYDAEMON_PIDFILE"), *dir = getenv("XDG_RUNTIME_DIR");
    int c, n, wrong = 0;

    while ((c = getopt(argc, argv, "l:g:p:")) != -1) {
        switch (c) {
        case 'l': address = optarg; break;
        case 'g': greeting_file = optarg; break;
        case 'p': path = optarg; break;
        default: wrong = 1; break;
        }
    }
    if (wrong || optind < argc) {
        fprintf(stderr, "usage: mydaemon [-l ADDRESS:PORT] [-g GREETING-FILE] [-p PID-FILE]\n");
        exit(2);
    }
    n = path && *path ? snprintf(pidfile, sizeof pidfile, "%s", path)
                      : snprintf(pidfile, sizeof pidfile, "%s/mydaemon.pid", dir && *dir ? dir : "/run");
    if ((size_t)n >= sizeof pidfile)
        fail(ENAMETOOLONG, "cannot use the PID file");
}

int main(int argc, char **argv)
{
    const char *job = getenv("UPSTART_JOB"), *socket_name = getenv("NOTIFY_SOCKET");
    int stops = job && *job, notifies = !stops && socket_name && *socket_name, fd, err;
    sigset_t signals;
    do /* whoever started us may have closed 0, 1 or 2: no socket of ours shall get such a number */
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    close(fd);
    options(argc, argv);

    /* From here on signals wait: one that comes right after "ready" is not lost. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN); /* a client that hangs up early must not end us */

    if (notifies) {
        notify_open(socket_name);
        watchdog_open();
    }
    if ((err = load_greeting()) != 0)
        fail(err, "cannot read %s", greeting_file);
    listen_on(address);

    if (stops)
        stop_self();
    else if (notifies)
        notify(ready, 0);
    else
        daemonize(&signals);

    serve(&signals);
    notify("STOPPING=1\n", 0);
    close(listener);
    return 0; /* and remove_pidfile, if there is one */
}
