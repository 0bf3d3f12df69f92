// Goparent is c/parent.c in Go: what a parent of a daemon that stops itself can be at the
// least, if it is written in Go and leaves the runtime alone.
package main

import (
	"fmt"
	"os"
	"strconv"

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
	p, err := os.StartProcess(args[0], args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	for err == nil {
		var status unix.WaitStatus
		switch _, err = unix.Wait4(p.Pid, &status, unix.WUNTRACED, nil); {
		case err == unix.EINTR:
			err = nil
		case err == nil && !status.Stopped():
			return p.Release()
		case err == nil:
			err = p.Signal(unix.SIGCONT)
		}
	}
	return err
}
