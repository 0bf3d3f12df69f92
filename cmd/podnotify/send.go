package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/notify"
)

// barrierWait is how long send waits for the receiver, as systemd-notify does.
const barrierWait = 5 * time.Second

// message is what send is asked to say.
type message struct {
	ready, reloading, stopping, watchdog bool
	status, pid, fdname                  string
	fds                                  []int
	lines                                []string
}

// parent stands for --pid without a number.
const parent = "parent"

func newSendCommand(a *app) *cobra.Command {
	var (
		m         message
		noBarrier bool
	)
	c := &cobra.Command{
		Use:   "send [flags] [KEY=VALUE...]",
		Short: "Tell what listens on NOTIFY_SOCKET how a daemon is, as systemd-notify does",
		Long: `Send one message to the socket named by NOTIFY_SOCKET, as systemd-notify does,
and wait until the receiver has acted upon it. The exit code is 1 if it was not
delivered.

Whether the receiver believed the sender is not told: the protocol has no answer.
See Dropped in podnotify status, and the log.`,
		RunE: func(c *cobra.Command, args []string) error {
			m.lines = args
			lines, err := m.text(c.Flags().Changed("status"))
			if err != nil {
				return exit(exitUsage, err)
			}
			if err := send(a.getenv("NOTIFY_SOCKET"), lines, m.fds, !noBarrier); err != nil {
				return exit(exitFailed, err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.BoolVar(&m.ready, "ready", false, "READY=1: the start or the reload is finished")
	f.BoolVar(&m.reloading, "reloading", false, "RELOADING=1: a reload begins")
	f.BoolVar(&m.stopping, "stopping", false, "STOPPING=1: the daemon goes down")
	f.StringVar(&m.status, "status", "", "STATUS=: a line for people")
	f.StringVar(&m.pid, "pid", "", "MAINPID=: the main process, by default the one that called this")
	f.Lookup("pid").NoOptDefVal = parent
	f.BoolVar(&m.watchdog, "watchdog", false, "WATCHDOG=1: a sign of life")
	f.IntSliceVar(&m.fds, "fd", nil, "FDSTORE=1: keep this inherited descriptor; may be repeated")
	f.StringVar(&m.fdname, "fdname", "", "FDNAME=: the name of the kept descriptors")
	f.BoolVar(&noBarrier, "no-barrier", false, "do not wait until the receiver has acted upon it")
	failUsage(c, exitUsage)
	return c
}

// text makes the lines of the message.
func (m *message) text(hasStatus bool) ([]string, error) {
	var out []string
	if m.ready {
		out = append(out, "READY=1")
	}
	if m.reloading {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return nil, fmt.Errorf("cannot read the clock: %w", err)
		}
		out = append(out, "RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
	}
	if m.stopping {
		out = append(out, "STOPPING=1")
	}
	if hasStatus {
		out = append(out, "STATUS="+m.status)
	}
	switch pid, err := notify.ParsePID([]byte(m.pid)); {
	case m.pid == "":
	case m.pid == parent:
		out = append(out, "MAINPID="+strconv.Itoa(os.Getppid()))
	case err != nil:
		return nil, fmt.Errorf("cannot use --pid %q: is no process number", m.pid)
	default:
		out = append(out, "MAINPID="+strconv.Itoa(pid))
	}
	if m.watchdog {
		out = append(out, "WATCHDOG=1")
	}
	for _, fd := range m.fds {
		// The runtime's own descriptors are all close-on-exec, inherited ones are not.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("cannot use --fd %d: no such descriptor was inherited; open it in the shell, like %d<FILE", fd, fd)
		}
	}
	switch {
	case len(m.fds) > 0:
		out = append(out, "FDSTORE=1")
		if m.fdname != "" {
			out = append(out, "FDNAME="+m.fdname)
		}
	case m.fdname != "":
		return nil, errors.New("cannot use --fdname: there is no --fd")
	}
	for _, line := range m.lines {
		if key, _, ok := strings.Cut(line, "="); !ok || key == "" {
			return nil, fmt.Errorf("cannot send %q: is not KEY=VALUE", line)
		}
	}
	out = append(out, m.lines...)
	if len(out) == 0 {
		return nil, errors.New("cannot send: there is nothing to say; see podnotify send --help")
	}
	return out, nil
}

func send(address string, lines []string, fds []int, barrier bool) error {
	if address == "" {
		return errors.New("cannot send: NOTIFY_SOCKET is not set; run this in a service of podnotify or systemd, or set it to the socket")
	}
	n, err := notify.NewNotifier(address)
	if err != nil {
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(context.Background(), barrierWait)
	defer cancel()
	if err := n.SendFDs(ctx, fds, lines...); err != nil {
		return err
	}
	if barrier {
		return n.Barrier(ctx)
	}
	return nil
}
