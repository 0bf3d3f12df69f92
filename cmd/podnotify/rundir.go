package main

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

// runDir is the directory of one running podnotify: its sockets and its state.
type runDir struct {
	path string
	lock *os.File
}

// claimRunDir makes the directory, if it has to, and takes it for this process.
// A second podnotify on one directory would take the first one's sockets.
func claimRunDir(path string) (*runDir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("cannot use run-dir %s: %w; name a directory that can be written with --run-dir", path, bare(err))
	}
	name := filepath.Join(path, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot use run-dir %s: %w; name a directory that can be written with --run-dir", path, bare(err))
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
	return &runDir{path, f}, nil
}

// serviceDir makes the directory that is mounted into the daemon. It returns the
// one on the way to it that keeps other users out, if there is one: what a
// daemon says that changed its uid is then lost.
func (d *runDir) serviceDir(address string) (closed string, err error) {
	if strings.HasPrefix(address, "@") {
		return "", nil
	}
	dir := filepath.Dir(address)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make %s for the notify socket: %w", dir, bare(err))
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

// warnClosed warns where the daemon may change its uid: only root can.
func warnClosed(log *slog.Logger, service, closed string) {
	if closed != "" && os.Geteuid() == 0 {
		log.Warn("a daemon that drops root cannot reach its notify socket: other users cannot enter the directory", "service", service, "directory", closed)
	}
}

func (d *runDir) control() string { return filepath.Join(d.path, "control") }

func (d *runDir) state() string { return filepath.Join(d.path, "state") }

func (d *runDir) close() { d.lock.Close() }

// bare is the reason without the operation and path that os puts around it.
func bare(err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
