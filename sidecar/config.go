package sidecar

import (
	"io/fs"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Access says whose words count: systemd's NotifyAccess=, and "any", which
// judges nobody and is the only way to hear senders in a PID namespace that
// cannot be seen from here.
type Access uint8

const (
	AccessAll  Access = iota // the service's processes, short-lived helpers included
	AccessNone               // nobody
	AccessMain               // the main process
	AccessExec               // the main process and what podnotify started
	AccessAny                // whoever reaches the socket
)

var accessNames = [...]string{"all", "none", "main", "exec", "any"}

func (a Access) String() string { return accessNames[a] }

// ParseAccess is the inverse of String.
func ParseAccess(s string) (Access, bool) {
	for i, n := range accessNames {
		if n == s {
			return Access(i), true
		}
	}
	return 0, false
}

// Config is one service as the operator wants it.
type Config struct {
	Name string // [a-z0-9]([a-z0-9-]*[a-z0-9])?, 63 at most

	Address string      // of the notify socket: "/path" or "@abstract"
	Mode    fs.FileMode // of a path socket
	Access  Access

	Job string // value of UPSTART_JOB, where podnotify starts the daemon

	Container string         // select.container: the container's name in Kubernetes; "": found
	Process   *regexp.Regexp // select.process: matches the command line, arguments joined by spaces; nil: all
	PIDFile   string         // select.pidfile

	Policy lifecycle.Policy

	WatchdogSignal unix.Signal
	KillSignal     unix.Signal
	ReloadSignal   unix.Signal // 0: none

	Gate string // gate.tcp: host:port, empty: none

	FDStoreMax int
}
