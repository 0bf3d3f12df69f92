// Podnotify listens to a daemon that speaks to its init system, by sd_notify or
// by stopping itself, and turns what it says into answers for the probes of
// container platforms. This package is one file per command and the only place
// that wires the parts together.
package main

import (
	"os"

	"github.com/podnotify/podnotify/internal/supervise"
)

func main() {
	supervise.Main() // between fork and exec of a daemon, this is not podnotify
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
