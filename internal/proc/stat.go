package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is the kernel's letter for what a process does, field 3 of
// /proc/PID/stat: R running, S sleeping, D in disk sleep, T stopped by a signal,
// t stopped by a tracer, Z zombie, X dead, I idle kernel thread.
type State byte

// Stopped reports whether a signal has stopped the process. A process that its
// tracer holds (t) is not stopped.
func (s State) Stopped() bool { return s == 'T' }

// Dead reports whether nothing of the process or thread will ever run again.
func (s State) Dead() bool { return s == 'Z' || s == 'X' || s == 'x' }

// String returns the letter.
func (s State) String() string { return string(rune(s)) }

// Stat is the part of /proc/PID/stat that tells who a process is.
type Stat struct {
	PID, PPID, PGID, Session int

	State    State  // as [Handle.State] has it, but T already if the leading thread is
	Start    uint64 // clock ticks since boot
	Flags    uint64 // PF_* of the kernel's sched.h
	Faults   uint64 // minor page faults so far, of all threads: whoever calls exec has some
	Threads  int
	Headless bool   // the leading thread has ended, others live on
	Comm     string // at most 15 bytes, any but NUL
}

// ID returns the identity of the process.
func (s Stat) ID() ID { return ID{s.PID, s.Start} }

// Kernel reports whether it is a kernel thread.
func (s Stat) Kernel() bool { return s.Flags&0x00200000 != 0 } // PF_KTHREAD

// exiting is PF_EXITING: the process or thread runs no code of its program any more.
const exiting = 0x4

// Ending reports whether the process is on its way out, or out. Its program and its
// memory are gone then and its cgroups of version 1 are the root's, although it may
// be no zombie yet: what is read about it is wrong.
func (s Stat) Ending() bool { return s.Flags&exiting != 0 && !s.Headless }

// Stat reads /proc/PID/stat. What it says may be about another process by the
// time it is used; [FS.Open] is for keeping.
func (f FS) Stat(pid int) (Stat, error) {
	var buf [1024]byte
	return f.stat(pid, buf[:])
}

func (f FS) stat(pid int, buf []byte) (Stat, error) {
	b, err := readInto(f.path(pid, "stat"), buf)
	if err != nil {
		return Stat{}, fmt.Errorf("cannot read stat of process %d: %w", pid, gone(err))
	}
	s, err := parseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("cannot read stat of process %d: %w", pid, err)
	}
	if s.headless() {
		if state, _, err := f.threads(pid); err == nil && state != 0 {
			s.State, s.Headless = state, true
		}
	}
	return s, nil
}

// headless reports whether the leading thread has ended and others have not. The
// kernel then says that the process is a zombie, and has no text of it to show.
func (s Stat) headless() bool { return s.State.Dead() && s.Threads > 1 }

// threads returns the state that all living threads share and one of them, or
// else one that is not stopped and its state; 0 if no thread is left.
func (f FS) threads(pid int) (all State, tid int, err error) {
	dir, err := os.Open(f.path(pid, "task"))
	if err != nil {
		return 0, 0, gone(err)
	}
	defer dir.Close()
	tids, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, 0, gone(err)
	}
	var buf [512]byte
	for _, name := range tids {
		b, err := readInto(dir.Name()+"/"+name+"/stat", buf[:])
		if err != nil {
			if gone(err) == ErrGone {
				continue // that thread has ended
			}
			return 0, 0, err
		}
		s, ok := parseState(b)
		if !ok {
			return 0, 0, errStat
		}
		if s.Dead() {
			continue
		}
		if st, err := parseStat(b); err == nil && st.Ending() {
			continue
		}
		all = s
		tid, _ = strconv.Atoi(name)
		if !s.Stopped() {
			break
		}
	}
	return all, tid, nil
}

// body is the path of a file that belongs to all threads of process pid. If the
// leading thread has ended the kernel shows it nothing of them, or that which a
// dead process has (cgroup, in version 1), so another thread's file is read.
func (f FS) body(pid int, name string) string {
	var buf [1024]byte
	if b, err := readInto(f.path(pid, "stat"), buf[:]); err == nil {
		if s, err := parseStat(b); err == nil && s.headless() {
			if _, tid, err := f.threads(pid); err == nil && tid != 0 {
				name = "task/" + strconv.Itoa(tid) + "/" + name
			}
		}
	}
	return f.path(pid, name)
}

// readInto reads a file of procfs by one read into buf; what does not fit is cut
// off. It is half the system calls of os.ReadFile, which matters for a scan.
func readInto(path string, buf []byte) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return pread(fd, buf)
}

// maxFile bounds what is read of a file whose length a process may choose.
const maxFile = 16 << 20

// readAll reads a file of procfs whole, at most most bytes of it. os.ReadFile would
// make six system calls more, because it asks the runtime's poller first.
func readAll(path string, most int) ([]byte, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b := make([]byte, 0, min(most, 2048))
	for len(b) < most {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := retry(func() (int, error) { return unix.Read(fd, b[len(b):min(cap(b), most)]) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		b = b[:len(b)+n]
	}
	return b, nil
}

// pread reads from the start of a kept-open file of procfs, which makes the
// kernel write its text anew. It allocates nothing. The call is raw: it does not
// block, and telling the scheduler of it wakes the runtime's monitor, each time.
func pread(fd int, buf []byte) ([]byte, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)), 0, 0, 0)
		switch errno {
		case 0:
			return buf[:n], nil
		case unix.EINTR:
		default:
			return nil, errno
		}
	}
}

// retry calls f again while a signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

var errStat = errors.New("it does not look like proc_pid_stat(5)")

// parseStat reads the line. The name may hold spaces, brackets and line feeds,
// so the fields are counted from the last ')'.
func parseStat(b []byte) (Stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Stat{}, errStat
	}
	pid, ok := atoi(bytes.TrimSpace(b[:open]))
	if !ok {
		return Stat{}, errStat
	}
	s := Stat{PID: int(pid), Comm: string(b[open+1 : end])}
	rest := b[end+1:]
	for field := 3; field <= 22; field++ {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexAny(rest, " \n")
		if n < 0 {
			n = len(rest)
		}
		word := rest[:n]
		rest = rest[n:]
		if len(word) == 0 {
			return Stat{}, errStat
		}
		if field == 3 {
			s.State = State(word[0])
			continue
		}
		var to *int
		switch field {
		case 4:
			to = &s.PPID
		case 5:
			to = &s.PGID
		case 6:
			to = &s.Session
		case 20:
			to = &s.Threads
		case 9, 10, 22:
			v, ok := atoi(word)
			if !ok {
				return Stat{}, errStat
			}
			switch field {
			case 9:
				s.Flags = v
			case 10:
				s.Faults = v
			case 22:
				s.Start = v
			}
			continue
		default:
			continue
		}
		// A dead process has -1 for its group and session.
		v, err := strconv.Atoi(string(word))
		if err != nil {
			return Stat{}, errStat
		}
		*to = v
	}
	return s, nil
}

// parseState returns field 3 only. It allocates nothing.
func parseState(b []byte) (State, bool) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 || end+2 >= len(b) {
		return 0, false
	}
	return State(b[end+2]), true
}

// Table is one look at all processes: number to [Stat]. The kernel gives no
// consistent view, so a parent named in it may be missing from it.
type Table map[int]Stat

// Table scans procfs once. Processes that end meanwhile are left out, and those that
// procfs tells us nothing of.
func (f FS) Table() (Table, error) {
	pids, err := f.Pids()
	if err != nil {
		return nil, err
	}
	t := make(Table, len(pids))
	var buf [1024]byte
	for _, pid := range pids {
		s, err := f.stat(pid, buf[:])
		if errors.Is(err, ErrGone) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) { // hidepid=noaccess
			continue
		}
		if err != nil {
			return nil, err
		}
		t[pid] = s
	}
	return t, nil
}

// Ancestors returns the parent of process pid, the parent's parent and so on, as
// far as the table knows them. A parent outside our PID namespace (number 0) is
// not among them.
func (t Table) Ancestors(pid int) []int {
	var up []int
	for s, ok := t[pid]; ok && s.PPID > 0 && len(up) < len(t); s, ok = t[s.PPID] {
		// The scan takes time: a number reused meanwhile could close a circle,
		// but a parent is never younger than its child.
		if p, ok := t[s.PPID]; ok && p.Start > s.Start {
			break
		}
		up = append(up, s.PPID)
	}
	return up
}

// Descends reports whether process pid is a child of process of, or a child's
// child and so on. No process descends from itself.
func (t Table) Descends(pid, of int) bool {
	s, ok := t[pid]
	for range len(t) {
		if !ok || s.PPID <= 0 {
			return false
		}
		p, known := t[s.PPID]
		if known && p.Start > s.Start {
			return false
		}
		if s.PPID == of {
			return pid != of
		}
		s, ok = p, known
	}
	return false
}
