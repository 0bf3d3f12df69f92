// Package proc names processes without ever naming the wrong one, and is the
// only place that sends signals.
//
// A process number is reused as soon as its process has been reaped, so a bare
// number never names a process for longer than one instruction. A [Handle] does:
// it holds a pidfd (Linux 5.3), which refers to one process for ever, and the
// start time read while that pidfd was known to be good. The package reads
// /proc and asks pidfds; it never starts, traces or waits for processes, and it
// decides nothing.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that the process has ended, or never was.
	ErrGone = errors.New("there is no such process")
	// ErrReused says that the number belongs to another process now.
	ErrReused = errors.New("the number belongs to another process now")
	// ErrNotPermitted says that the kernel refuses the signal to our user.
	ErrNotPermitted = errors.New("not permitted")
	// ErrInvisible says that the process lives in a PID namespace from which
	// we cannot be named and which we cannot see: it has no number here and
	// takes no signal from us.
	ErrInvisible = errors.New("it lives in a PID namespace that is not visible from here")
	// ErrUnknown says that the kernel does not tell.
	ErrUnknown = errors.New("the kernel does not tell")
)

// ID is what tells one process from every other since boot: its number and its
// start time. It is comparable and may be a map key. Across boots it must be
// stored beside [FS.BootID]. (A number that comes again within one clock tick,
// 10 ms, would make the same ID; all numbers would have to go around in that time.
// A [Handle] cannot be fooled even then.)
//
// A process in a PID namespace that is not visible from ours has no number: PID
// is 0 and Start is the inode number of its pidfd, which no two processes share
// (pidfs, Linux 6.9; 0 before).
type ID struct {
	PID   int
	Start uint64 // clock ticks since boot: field 22 of /proc/PID/stat
}

// String returns "pid/start".
func (id ID) String() string {
	return strconv.Itoa(id.PID) + "/" + strconv.FormatUint(id.Start, 10)
}

// FS is the directory on which procfs is mounted. It must be a procfs of our own
// PID namespace, because the numbers in it are handed to pidfd_open.
type FS string

// Proc is where procfs is mounted nearly everywhere.
const Proc = FS("/proc")

// path returns the path of a file of process pid.
func (f FS) path(pid int, name string) string {
	var buf [64]byte // on the stack: a look at a crowd makes a thousand paths
	b := append(buf[:0], f...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(pid), 10)
	b = append(b, '/')
	b = append(b, name...)
	return string(b)
}

// Root is the root directory of process pid: what it calls "/". Opening it takes
// the rights of a tracer (ptrace(2)), and what is below it is that process's.
func (f FS) Root(pid int) string { return f.path(pid, "root") }

// read returns a whole small file of process pid; a process that is gone is
// ErrGone, whether its directory is missing or goes away while it is read.
func (f FS) read(pid int, name string) ([]byte, error) {
	b, err := readAll(f.body(pid, name), maxFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s of process %d: %w", name, pid, gone(err))
	}
	return b, nil
}

// gone turns the two ways in which procfs says that a process has ended into
// ErrGone: ENOENT on open, ESRCH on read.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// Pids returns the numbers of all visible processes in ascending order. Threads
// have numbers, too, but are not listed.
func (f FS) Pids() ([]int, error) {
	d, err := os.Open(string(f))
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot list processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids) // procfs sorts, a fixture may not
	return pids, nil
}

// Cmdline returns the command line of process pid, its arguments joined by one
// space, cut after 4096 bytes. It is empty for kernel threads and zombies. The
// process may write what it likes there.
func (f FS) Cmdline(pid int) (string, error) {
	b, err := readAll(f.body(pid, "cmdline"), 4096)
	if err != nil {
		return "", fmt.Errorf("cannot read cmdline of process %d: %w", pid, gone(err))
	}
	b = bytes.TrimRight(b, "\x00")
	return string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})), nil
}

// Exe returns the path of the program that process pid executes. The kernel tells
// those of the same uid, and root. A process that is ending executes none.
func (f FS) Exe(pid int) (string, error) {
	path, err := os.Readlink(f.body(pid, "exe"))
	if err != nil {
		return "", fmt.Errorf("cannot read exe of process %d: %w", pid, gone(err))
	}
	return path, nil
}

// Uids returns the real, effective and saved user id of process pid, as seen
// from our user namespace (65534 where the id has no name there).
func (f FS) Uids(pid int) (real, effective, saved uint32, err error) {
	fields, err := f.status(pid, "Uid:")
	if err != nil {
		return 0, 0, 0, err
	}
	if len(fields) < 3 {
		return 0, 0, 0, fmt.Errorf("cannot read status of process %d: no user ids in it", pid)
	}
	var ids [3]uint32
	for i := range ids {
		n, err := strconv.ParseUint(fields[i], 10, 32)
		if err != nil {
			return 0, 0, 0, fmt.Errorf("cannot read status of process %d: user id %q is no number", pid, fields[i])
		}
		ids[i] = uint32(n)
	}
	return ids[0], ids[1], ids[2], nil
}

// Catches reports whether process pid has a handler for a signal.
func (f FS) Catches(pid int, sig unix.Signal) (bool, error) {
	fields, err := f.status(pid, "SigCgt:")
	if err != nil || len(fields) != 1 || sig < 1 {
		return false, err
	}
	mask, err := strconv.ParseUint(fields[0], 16, 64)
	if err != nil {
		return false, fmt.Errorf("cannot read status of process %d: signal mask %q is no number", pid, fields[0])
	}
	return mask>>(sig-1)&1 == 1, nil
}

// NSpid returns the numbers of process pid in every PID namespace it is visible
// in, ours first, its own last. One number means that it lives in our namespace.
func (f FS) NSpid(pid int) ([]int, error) {
	fields, err := f.status(pid, "NStgid:")
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 { // before Linux 4.1, or CONFIG_PID_NS is off
		return []int{pid}, nil
	}
	pids := make([]int, len(fields))
	for i, s := range fields {
		if pids[i], err = strconv.Atoi(s); err != nil {
			return nil, fmt.Errorf("cannot read status of process %d: process number %q is no number", pid, s)
		}
	}
	return pids, nil
}

// status returns the fields of one line of /proc/PID/status, none if the line
// is missing. The only free text in that file is the name, which the kernel
// escapes so that it stays on its line.
func (f FS) status(pid int, key string) ([]string, error) {
	b, err := readAll(f.path(pid, "status"), maxFile) // the leading thread's will do
	if err != nil {
		return nil, fmt.Errorf("cannot read status of process %d: %w", pid, gone(err))
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.Fields(rest), nil
		}
	}
	return nil, nil
}

// BootID returns the random id of this boot of the kernel. An [ID] means
// something only together with it.
func (f FS) BootID() (string, error) {
	b, err := os.ReadFile(string(f) + "/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Uptime is the time since boot (CLOCK_BOOTTIME), in which the kernel tells when
// a process started.
func Uptime() time.Duration {
	var up unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) // fails for unknown clocks only
	return time.Duration(up.Nano())
}

// Newest reads the number most lately given to a process or thread of our own
// PID namespace: the last field of /proc/loadavg. While it does not change,
// nothing has been forked, and nobody needs to look for new processes.
//
// One goroutine may use it at a time.
type Newest struct {
	fd  int
	buf [128]byte
}

// Newest opens /proc/loadavg and keeps it open.
func (f FS) Newest() (*Newest, error) {
	fd, err := retry(func() (int, error) { return unix.Open(string(f)+"/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("cannot watch for new processes: %w", err)
	}
	return &Newest{fd: fd}, nil
}

// Read returns the number. It allocates nothing.
func (n *Newest) Read() (int, error) {
	b, err := pread(n.fd, n.buf[:])
	if err != nil {
		return 0, fmt.Errorf("cannot watch for new processes: %w", err)
	}
	line := bytes.TrimRight(b, " \n")
	pid, ok := atoi(line[bytes.LastIndexByte(line, ' ')+1:])
	if !ok {
		return 0, errors.New("cannot watch for new processes: the last field of loadavg is no number")
	}
	return int(pid), nil
}

// Close closes the file.
func (n *Newest) Close() error { return unix.Close(n.fd) }

// atoi reads an unsigned decimal number from bytes without making a string.
func atoi(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
