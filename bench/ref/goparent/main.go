// Goparent is c/parent.c in Go: what a parent of a daemon that stops itself can be at the
// least, if it is written in Go and leaves the runtime alone.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	count, err := strconv.Atoi(os.Args[1])
	for i := 0; i < count && err == nil; i++ {
		err = once(os.Args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "goparent:", err)
		os.Exit(1)
	}
}

// once starts a daemon and continues it whenever it stops.
func once(args []string) error {
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	for err == nil {
		var status unix.WaitStatus
		switch _, err = unix.Wait4(pid, &status, unix.WUNTRACED, nil); {
		case err == unix.EINTR:
			err = nil
		case err == nil && !status.Stopped():
			return nil
		case err == nil:
			err = unix.Kill(pid, unix.SIGCONT)
		}
	}
	return err
}
