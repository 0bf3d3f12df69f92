// Command mydaemon is one small daemon with all three habits of saying "I am ready":
//
//	UPSTART_JOB is set     it stops itself with SIGSTOP and waits for SIGCONT (upstart, expect stop)
//	NOTIFY_SOCKET is set   it sends one datagram, "READY=1..." (systemd, Type=notify)
//	neither                it goes to the background and writes a PID file (the traditional way)
//
// With both set it stops itself and sends nothing, as most daemons do. One rule holds for all three:
// listen first, say ready afterwards, so that whoever hears "ready" may connect at once.
//
// It answers every TCP connection with one line, "mydaemon pid N generation G". SIGHUP reloads the
// greeting (the first word), SIGTERM ends it. ../c/mydaemon.c is the same program in C, function by
// function; comments here say where Go differs.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	address      = flag.String("l", "127.0.0.1:7070", "listen on `ADDRESS:PORT`")
	greetingFile = flag.String("g", "", "read the greeting, the first word of the answer, from `FILE`")
	pidFile      = flag.String("p", defaultPIDFile(), "write this PID `FILE` when going to the background")

	greeting   = "mydaemon"
	generation = 1 // counts the greetings loaded

	// supervisor is the notification socket; fd is -1 while there is nobody to tell.
	supervisor = struct {
		fd int
		to *syscall.SockaddrUnix
	}{fd: -1}
	ready          []byte        // made once at start: saying ready must not depend on memory
	watchdogPeriod time.Duration // between pings; 0: nobody asked for pings

	atExit = func() {} // removes the PID file, if there is one
)

// daemonized tells the process that daemonize starts from its parent.
const daemonized = "MYDAEMON_DAEMONIZED"

// notify sends one datagram, if there is a supervisor. A failure is reported and otherwise ignored: a
// daemon must not end because nobody listens to it. Unless flags has MSG_DONTWAIT, the call waits
// while the receiver's queue is full, so nothing is lost.
//
// The Go runtime has signal handlers, which may interrupt the call, hence the loop. (Package syscall
// rather than x/sys, which cannot spell an abstract name of full length.)
func notify(message []byte, flags int) {
	if supervisor.fd < 0 {
		return
	}
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = syscall.Sendto(supervisor.fd, message, flags, supervisor.to)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "mydaemon: cannot notify the supervisor: %v\n", err)
	}
}

// fail reports a fatal failure, text and number in one datagram so that nobody sees one alone, and exits.
func fail(err error, format string, args ...any) {
	errno := syscall.EINVAL // what ERRNO says if the kernel had no part in it
	errors.As(err, &errno)
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(os.Stderr, "mydaemon: %s: %v\n", text, reason(err))
	notify(fmt.Appendf(nil, "STATUS=%s: %v\nERRNO=%d\n", text, reason(err), int(errno)), 0)
	atExit()
	os.Exit(1)
}

// reason is the kernel's part of err, as strerror words it, or else all of err.
func reason(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// notifyOpen prepares socket, address and message. The socket stays unconnected: a connected one would
// be refused for ever once the supervisor had bound its address anew. An address we cannot use
// leaves us silent but serving.
func notifyOpen(path string) {
	abstract := path[0] == '@' // a name without a file; Sendto makes the '@' a leading NUL
	room := len(syscall.RawSockaddrUnix{}.Path)
	if !abstract {
		room-- // a path is followed by a NUL, an abstract name is not: its length says where it ends
	}
	if path[0] != '/' && !abstract || len(path) > room {
		fmt.Fprintf(os.Stderr, "mydaemon: cannot use NOTIFY_SOCKET: %s is neither /path nor @name, or too long\n", path)
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fail(err, "cannot create the notification socket")
	}
	supervisor.fd, supervisor.to = fd, &syscall.SockaddrUnix{Name: path}
	ready = fmt.Appendf(nil, "READY=1\nSTATUS=ready\nMAINPID=%d\n", os.Getpid())
}

// watchdogOpen takes half of WATCHDOG_USEC, the longest silence the supervisor accepts. WATCHDOG_PID, if
// set, says which process is meant: the variables may have been inherited from a parent.
func watchdogOpen() {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return
	}
	n, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 53) // 53 bits of µs are 285 years, the most a Duration holds
	if err == nil {
		watchdogPeriod = time.Duration(n) * time.Microsecond / 2
	}
}

// now is CLOCK_MONOTONIC in microseconds, the clock MONOTONIC_USEC is defined by. Package time keeps
// that clock to itself.
func now() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail for this clock
	return t.Nano() / 1000
}

// stopSelf stops this process. The supervisor sees that, takes it for "ready" and sends SIGCONT; only
// then does Tgkill return. The variable is unset so that no child of ours inherits it and stops
// too. (The kernel ignores the stop if we are PID 1 of our namespace.)
//
// The signal goes to the calling thread, as raise sends it in C. After kill(getpid()) the kernel may
// choose another thread, and this one would run on for a moment.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP); err != nil {
		fail(err, "cannot stop myself")
	}
	os.Unsetenv("UPSTART_JOB")
}

// writePIDFile writes a temporary file and renames it: no reader ever sees half a number.
func writePIDFile() {
	f, err := os.CreateTemp(filepath.Dir(*pidFile), filepath.Base(*pidFile)+".")
	if err != nil {
		fail(err, "cannot create PID file %s (-p names another)", *pidFile)
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, os.Getpid())
	if err = errors.Join(err, f.Chmod(0o644)); err == nil {
		err = os.Rename(f.Name(), *pidFile)
	}
	if err != nil {
		os.Remove(f.Name())
		fail(err, "cannot write PID file %s (-p names another)", *pidFile)
	}
	atExit = func() { os.Remove(*pidFile) }
}

// daemonize returns in the daemon only. The parent waits at a pipe and exits 0 once the daemon writes to
// it, or 1 if it closes unwritten: when the command returns, the daemon serves and its PID file is
// there. The working directory stays, as -p and -g may be relative.
//
// A Go program cannot fork: the child would have one thread, without the others the runtime relies
// on. So it starts itself anew in a new session, and hands over what a fork would have kept: the
// listening socket (descriptor 3; clients that connected meanwhile wait in its queue) and the
// pipe (4). This is one child, where C forks twice: it leads its session, and so must never open
// a terminal, which it has no reason to.
func daemonize(listener net.Listener) {
	if os.Getenv(daemonized) == "" {
		os.Exit(startDaemon(listener))
	}
	os.Unsetenv(daemonized)
	writePIDFile()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		fail(err, "cannot open /dev/null")
	}
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			fail(err, "cannot open /dev/null")
		}
	}
	null.Close()
	pipe := os.NewFile(4, "pipe")
	pipe.Write([]byte{0}) // fails only if the parent was killed: serve all the same
	pipe.Close()
}

// startDaemon starts the daemon, waits until it serves, and returns the exit status.
func startDaemon(listener net.Listener) int {
	signal.Reset()
	exe, err := os.Executable()
	if err != nil {
		fail(err, "cannot find my own executable")
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		fail(err, "cannot hand over the socket")
	}
	r, w, err := os.Pipe()
	if err != nil {
		fail(err, "cannot create a pipe")
	}
	_, err = os.StartProcess(exe, os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), daemonized+"=1"),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, socket, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fail(err, "cannot start the daemon")
	}
	w.Close()
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		return 1
	}
	return 0
}

// listenOn listens, or takes over the socket its parent listens on.
func listenOn(where string) net.Listener {
	if os.Getenv(daemonized) != "" {
		socket := os.NewFile(3, "socket")
		defer socket.Close() // FileListener has its own copy
		listener, err := net.FileListener(socket)
		if err != nil {
			fail(err, "cannot take over the socket")
		}
		return listener
	}
	listener, err := net.Listen("tcp", where)
	if err != nil {
		fail(err, "cannot listen on %s", where)
	}
	return listener
}

// loadGreeting reads the first line of the file. After an error the old greeting stays.
func loadGreeting() error {
	if *greetingFile == "" {
		return nil
	}
	f, err := os.Open(*greetingFile)
	if err != nil {
		return err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 127)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if line == "" {
		return unix.ENODATA
	}
	greeting = strings.TrimSuffix(line, "\n")
	return nil
}

// reload says when it begins, works, and always says READY=1 again: the supervisor waits for that. By the
// time systemd (Type=notify-reload) tells this reload from an earlier one.
func reload() {
	notify(fmt.Appendf(nil, "RELOADING=1\nMONOTONIC_USEC=%d\n", now()), 0)
	if err := loadGreeting(); err != nil {
		notify(fmt.Appendf(nil, "READY=1\nSTATUS=cannot read %s: %v; the old greeting stays\n", *greetingFile, reason(err)), 0)
		return
	}
	generation++
	notify(ready, 0)
}

// answer writes the one line. It fits any socket's buffer, so no client can hold it up.
func answer(client net.Conn) {
	fmt.Fprintf(client, "%s pid %d generation %d\n", greeting, os.Getpid(), generation)
	client.Close()
}

// serve answers, reloads and pings in one loop: a ping proves that it turns. It returns on SIGTERM or
// SIGINT. Only accepting, which waits, has a goroutine of its own.
func serve(listener net.Listener, signals <-chan os.Signal) {
	clients := make(chan net.Conn)
	go func() {
		for {
			client, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			} else if err != nil {
				fail(err, "cannot accept a client")
			}
			clients <- client
		}
	}()
	var ping <-chan time.Time // nil, which is never ready, if nobody asked for pings
	if watchdogPeriod > 0 {
		ping = time.Tick(watchdogPeriod)
	}
	for {
		select {
		case client := <-clients:
			answer(client)
		case <-ping:
			notify([]byte("WATCHDOG=1\n"), unix.MSG_DONTWAIT) // one may be lost: half the interval allows for it
		case s := <-signals:
			if s != unix.SIGHUP {
				return
			}
			reload()
		}
	}
}

// defaultPIDFile is in $XDG_RUNTIME_DIR or /run, where no other user can put files; in /tmp anyone could
// be there first.
func defaultPIDFile() string {
	if path := os.Getenv("MYDAEMON_PIDFILE"); path != "" {
		return path
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "mydaemon.pid")
	}
	return "/run/mydaemon.pid"
}

func main() {
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	stops := os.Getenv("UPSTART_JOB") != ""
	notifies := !stops && os.Getenv("NOTIFY_SOCKET") != ""

	// From here on signals wait: one that comes right after "ready" is not lost.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM)

	if notifies {
		notifyOpen(os.Getenv("NOTIFY_SOCKET"))
		watchdogOpen()
	}
	if err := loadGreeting(); err != nil {
		fail(err, "cannot read %s", *greetingFile)
	}
	listener := listenOn(*address)

	switch {
	case stops:
		stopSelf()
	case notifies:
		notify(ready, 0)
	default:
		daemonize(listener)
	}

	serve(listener, signals)
	notify([]byte("STOPPING=1\n"), 0)
	listener.Close()
	atExit()
}
