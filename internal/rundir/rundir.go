// Package rundir is the directory of one running podnotify: its sockets and its state,
// and a lock that keeps a second one out.
package rundir

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a run-dir that this process has.
type Dir struct {
	Path string
	lock *os.File
}

// Claim makes the directory, if it has to, and takes it for this process.
// A second podnotify on one directory would take the first one's sockets.
func Claim(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("cannot use run-dir %s: %w; name a directory that can be written with --run-dir", path, Bare(err))
	}
	name := filepath.Join(path, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot use run-dir %s: %w; name a directory that can be written with --run-dir", path, Bare(err))
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() { // a FIFO would be waited on
		f.Close()
		return nil, fmt.Errorf("cannot use run-dir %s: %s is no regular file; remove it, or name another directory with --run-dir", path, name)
	}
	// The kernel gives the lock up when the process ends, however it ends.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		who := "another podnotify"
		if b, e := os.ReadFile(name); e == nil && strings.TrimSpace(string(b)) != "" {
			who += " (process " + strings.TrimSpace(string(b)) + ")"
		}
		f.Close()
		return nil, fmt.Errorf("cannot use run-dir %s: %s serves it; stop that one, or name another directory with --run-dir", path, who)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for the message above only
	}
	return &Dir{path, f}, nil
}

// ServiceDir makes the directory that is mounted into the daemon. It returns the
// one on the way to it that keeps other users out, if there is one: what a
// daemon says that changed its uid is then lost.
func (d *Dir) ServiceDir(address string) (closed string, err error) {
	if strings.HasPrefix(address, "@") {
		return "", nil
	}
	dir := filepath.Dir(address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make %s for the notify socket: %w", dir, Bare(err))
	}
	for up := dir; ; up = filepath.Dir(up) {
		if fi, err := os.Stat(up); err == nil && fi.Mode()&0o001 == 0 {
			return up, nil
		}
		if up == filepath.Dir(up) {
			return "", nil
		}
	}
}

// WarnClosed warns where the daemon may change its uid: only root can.
func WarnClosed(log *slog.Logger, service, closed string) {
	if closed != "" && os.Geteuid() == 0 {
		log.Warn("a daemon that drops root cannot reach its notify socket: other users cannot enter the directory", "service", service, "directory", closed)
	}
}

// Control is the path of the control socket.
func (d *Dir) Control() string { return filepath.Join(d.Path, "control") }

// State is the directory of what is known across a restart.
func (d *Dir) State() string { return filepath.Join(d.Path, "state") }

// Close gives the directory up.
func (d *Dir) Close() { d.lock.Close() }

// Bare is the reason without the operation and path that os puts around it.
func Bare(err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
