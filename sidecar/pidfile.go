package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// A PID file is looked at this often while it is waited for, and less often
// after ten seconds.
const (
	pidFileFast = 10 * time.Millisecond
	pidFileSlow = 100 * time.Millisecond
)

// watchPIDFile looks for the PID file while the service waits for it. The lock
// is held.
func (s *Service) watchPIDFile() {
	if s.cfg.Policy.Expect != lifecycle.ExpectPIDFile || s.filing || !s.awaitsPIDFile() {
		return
	}
	s.filing = true
	s.ends.Go(func() {
		for began := s.now(); ; {
			wait := pidFileFast
			if s.now().Sub(began) > 10*time.Second {
				wait = pidFileSlow
			}
			select {
			case <-s.life.Done():
				return
			case <-time.After(wait):
			}
			if !s.lookForPIDFile() {
				return
			}
		}
	})
}

func (s *Service) awaitsPIDFile() bool {
	switch s.m.Phase() {
	case lifecycle.Absent, lifecycle.Starting, lifecycle.Gone:
		return true
	}
	return false
}

// lookForPIDFile reports whether the file is still waited for.
func (s *Service) lookForPIDFile() bool {
	pid, err := s.pidFile()
	s.hear()
	defer s.mu.Unlock()
	if s.closed || !s.awaitsPIDFile() {
		s.filing = false
		return false
	}
	if err == nil {
		err = s.adoptPIDFile(pid)
	}
	if err != nil {
		text := "does not exist, or is empty"
		if !errors.Is(err, os.ErrNotExist) {
			text = fmt.Sprintf("is not believed: %v", err)
			s.warn("pidfile", "the PID file "+s.cfg.PIDFile+" "+text)
		}
		if text = s.cfg.PIDFile + " " + text; text != s.facts.PIDFile {
			s.facts.PIDFile = text
			s.stale.Store(true)
		}
		return true
	}
	s.facts.PIDFile = ""
	s.unwarn("pidfile") // it was a leftover, or about to be written
	s.filing = false
	s.settle()
	return false
}

// pidFile reads the number. The file may lie in the daemon's own file system.
func (s *Service) pidFile() (int, error) {
	b, err := readPIDFile(unix.AT_FDCWD, s.cfg.PIDFile, 0)
	if errors.Is(err, os.ErrNotExist) {
		s.mu.Lock()
		entry := s.entry.PID
		s.mu.Unlock()
		if entry != 0 {
			if in, e := s.readPIDFileIn(entry); e == nil {
				b, err = in, nil
			}
		}
	}
	if err != nil {
		return 0, err
	}
	if len(b) == 0 { // about to be written
		return 0, os.ErrNotExist
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	pid, err := notify.ParsePID(bytes.TrimSpace(line))
	if err != nil {
		return 0, fmt.Errorf("%q is no process number", bytes.TrimSpace(line))
	}
	return pid, nil
}

// readPIDFileIn reads it as the process pid would: a link such as /var/run -> /run
// leads to where it does in the daemon's file system, not in ours (Linux 5.6).
func (s *Service) readPIDFileIn(pid int) ([]byte, error) {
	root, err := unix.Open(s.dep.FS.Root(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	return readPIDFile(root, s.cfg.PIDFile, unix.RESOLVE_IN_ROOT)
}

// pidFileMost is more than any number and line feed have.
const pidFileMost = 64

var errNoFile = errors.New("it is no regular file")

// readPIDFile reads the beginning of a regular file. The daemon may have put there
// what it likes: a pipe would keep us waiting, and a device never end.
func readPIDFile(dir int, path string, resolve uint64) ([]byte, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	var fd int
	var err error
	if resolve == 0 {
		fd, err = unix.Open(path, flags, 0)
	} else {
		fd, err = unix.Openat2(dir, path, &unix.OpenHow{Flags: flags, Resolve: resolve})
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errNoFile
	}
	b := make([]byte, pidFileMost)
	n, err := unix.Read(fd, b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

// adoptPIDFile takes the process that a PID file names, if it can be the
// service's: alive, one of its processes, and younger than its start. A file
// that was left over from before names nobody, or somebody else.
func (s *Service) adoptPIDFile(pid int) error {
	main := s.mainID()
	from := person{id: main}
	if s.main != nil {
		from = *s.main
	}
	p, err := s.named1(pid, from, 0)
	switch {
	case errors.Is(err, proc.ErrGone):
		return fmt.Errorf("it names process %d, which does not exist: a leftover of an earlier start", pid)
	case err != nil:
		return fmt.Errorf("it names process %d: %w", pid, err)
	case p.id.Start < max(s.begun, main.Start) && p.id != main:
		return fmt.Errorf("it names process %d, which is older than this start of the service", pid)
	}
	s.elected = false
	s.apply(lifecycle.Event{Kind: lifecycle.PIDFileRead, Who: p.id})
	s.setMain(s.m.Main())
	return nil
}
