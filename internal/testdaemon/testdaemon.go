// Package testdaemon is a daemon that does what a test tells it to. A test
// binary becomes one by calling Main first in its TestMain; Command then runs it
// again as the daemon. It talks to a real socket, stops for real and dies for
// real: nothing about it is faked but its reasons.
package testdaemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/notify"
)

const variable = "PODNOTIFY_TESTDAEMON"

// Main does not return if this process is to be a daemon.
func Main() {
	script := os.Getenv(variable)
	if script == "" {
		return
	}
	if err := run(script); err != nil {
		fmt.Fprintln(os.Stderr, "testdaemon:", err)
		os.Exit(99)
	}
	os.Exit(0)
}

// Args is the command line of a daemon; Env has to be in its environment.
func Args() []string { return []string{self()} }

// Env is the environment entry that makes the test binary a daemon with a
// script. A script is steps separated by semicolons:
//
//	send TEXT     one datagram; \n separates lines, $PID, $CHILD and $PARENT are numbers
//	linger TEXT   one datagram, and with it a socket that takes until the end of this daemon to close
//	flood TEXT    one datagram, and with it as many descriptors as it can have
//	barrier       wait until podnotify has seen all that was sent
//	stop          raise SIGSTOP and go on when continued
//	sleep D       do nothing for a while
//	spawn STEPS   start a child with a script of its own, steps separated by |
//	join          wait for the last child to end
//	touch FILE    make an empty file: a mark for the test
//	await FILE    wait for a file
//	wait          until SIGTERM, then go on
//	ignore        SIGTERM from now on
//	exit N        end with a code
//	kill SIGNAL   end by a signal, KILL or SEGV
func Env(script string) string { return variable + "=" + script }

// Command is a daemon to be started.
func Command(script string, env ...string) *exec.Cmd {
	cmd := exec.Command(self())
	cmd.Env = append(append(os.Environ(), Env(script)), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err) // Linux always tells
	}
	return path
}

// linger sends a TCP socket with SO_LINGER and unsent data that this process keeps the
// other end of: who closes the socket waits for that to be read.
func linger(out *notify.Notifier, lines ...string) error {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer tcp.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: tcp.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	in, err := tcp.Accept()
	if err != nil {
		return err
	}
	kept = append(kept, in)
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	for err == nil { // until the window and the buffer are full
		_, err = unix.Write(fd, make([]byte, 1<<16))
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}); err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil { // or nobody lingers
		return err
	}
	if err := out.SendFDs(context.Background(), []int{fd}, lines...); err != nil {
		return err
	}
	return unix.Close(fd)
}

// kept are the other ends of what lingers.
var kept []net.Conn

func run(script string) error {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	var child *exec.Cmd
	out, err := notify.FromEnv()
	if err != nil && out == nil && os.Getenv("NOTIFY_SOCKET") != "" {
		return err
	}
	for _, step := range strings.Split(script, ";") {
		verb, arg, _ := strings.Cut(strings.TrimSpace(step), " ")
		var err error
		switch verb {
		case "":
		case "send":
			text := strings.NewReplacer(`\n`, "\n", "$PID", strconv.Itoa(os.Getpid()), "$PARENT", strconv.Itoa(os.Getppid())).Replace(arg)
			if child != nil {
				text = strings.ReplaceAll(text, "$CHILD", strconv.Itoa(child.Process.Pid))
			}
			err = out.Send(strings.Split(text, "\n")...)
		case "flood":
			var null *os.File
			if null, err = os.Open(os.DevNull); err == nil {
				err = out.SendFDs(context.Background(), slices.Repeat([]int{int(null.Fd())}, notify.MaxFDs), arg)
				null.Close()
			}
		case "linger":
			err = linger(out, strings.Split(strings.ReplaceAll(arg, `\n`, "\n"), "\n")...)
		case "barrier":
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			err = out.Barrier(ctx)
			cancel()
		case "stop":
			runtime.LockOSThread()
			err = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
			runtime.UnlockOSThread()
		case "sleep":
			var d time.Duration
			if d, err = time.ParseDuration(arg); err == nil {
				time.Sleep(d)
			}
		case "spawn":
			child = exec.Command(self())
			child.Env = append(os.Environ(), Env(strings.ReplaceAll(arg, "|", ";")))
			child.Stdout, child.Stderr = os.Stdout, os.Stderr
			err = child.Start()
		case "join":
			_ = child.Wait() // how it ended is its business
		case "touch":
			err = os.WriteFile(arg, nil, 0o644)
		case "await":
			for {
				if _, e := os.Stat(arg); e == nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
		case "wait":
			<-term
		case "ignore":
			signal.Ignore(unix.SIGTERM)
		case "exit":
			code, e := strconv.Atoi(arg)
			if e != nil {
				return e
			}
			os.Exit(code)
		case "kill":
			runtime.LockOSThread()
			err = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SignalNum("SIG"+arg))
			time.Sleep(time.Minute)
		default:
			err = fmt.Errorf("unknown step")
		}
		if err != nil {
			return fmt.Errorf("cannot do %q: %w", step, err)
		}
	}
	return nil
}
