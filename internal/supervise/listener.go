package supervise

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// listenerName is what we are called between fork and exec of a daemon that is
// handed descriptors.
const listenerName = "podnotify: starting"

// listener wraps a command so that LISTEN_PID is its own pid: sd_listen_fds
// believes nothing else, and the number is known only after the fork.
func listener(path string, args []string) (string, []string) {
	return "/proc/self/exe", append([]string{listenerName, path}, args...)
}

// Main takes over a process that listener made: it sets LISTEN_PID and becomes
// the daemon. For any other process it does nothing. It is to be called first.
func Main() {
	if len(os.Args) < 3 || os.Args[0] != listenerName {
		return
	}
	env := append(os.Environ(), "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	err := syscall.Exec(os.Args[1], os.Args[2:], env)
	fmt.Fprintf(os.Stderr, "podnotify: cannot start %s: %v\n", os.Args[1], err)
	os.Exit((&StartError{Err: err}).Code())
}
