package proc

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrUnclear says that several processes have a number, each in a PID namespace of
// its own, and nothing that we may read tells which is meant.
var ErrUnclear = errors.New("several processes have that number, each in a PID namespace of its own")

// Home is the PID namespace that a process lives in, as everybody may see it. The
// links in /proc/PID/ns are the owner's and root's, and of a daemon that changed its
// uid root's alone; its numbers and its ancestors are everybody's.
type Home struct {
	// Names are the numbers of the process, ours first, its own last. More than one
	// means that it lives in a namespace below ours, so many levels down.
	Names []int
	// Init is the first process of its namespace. It is zero in our own namespace,
	// and where the process was brought in from outside (setns): no ancestor of it
	// need live there then.
	Init ID
}

// Inner is the number that the process has for itself, 0 if it is not known.
func (h Home) Inner() int {
	if len(h.Names) == 0 {
		return 0
	}
	return h.Names[len(h.Names)-1]
}

// Home reads where process pid lives. It may be a zombie.
func (f FS) Home(pid int) (Home, error) {
	names, err := f.NSpid(pid)
	if err != nil {
		return Home{}, err
	}
	h := Home{Names: names}
	if len(names) > 1 {
		h.Init = f.init(pid, len(names))
	}
	return h, nil
}

// init climbs from a process to the first of its PID namespace depth levels down.
// Orphans are given to that one, or to an ancestor in the same namespace, so the
// climb ends there, unless somebody on the way came in from outside.
func (f FS) init(pid, depth int) ID {
	for range 1024 {
		st, err := f.Stat(pid)
		if err != nil {
			return ID{}
		}
		names, err := f.NSpid(pid)
		if err != nil || len(names) < depth {
			return ID{}
		}
		if names[depth-1] == 1 {
			return st.ID()
		}
		pid = st.PPID
	}
	return ID{}
}

// Called opens the process that is called n where home is: what MAINPID=n means when
// a process that lives there says it. Only those that may returns true for are
// considered, and may is asked again once the process is held; among lists who is looked
// at where the kernel does not tell, all if it is nil. of, if it is not nil,
// is who lives at home; while it lives, the kernel is asked first.
//
// The kernel tells (Linux 6.11, NS_GET_TGID_FROM_PIDNS) whoever may trace the process;
// else every process is looked at, which everybody may. Home is below our namespace:
// in our own a number needs no translation.
//
// The error is ErrGone if nobody is called so, ErrUnclear if several are.
func (f FS) Called(home Home, of *Handle, n int, may func(pid int) bool, among func() ([]int, error)) (*Handle, error) {
	for range 8 { // it fails again only if numbers pass on as fast as we look
		h, err := f.called(home, of, n, may, among)
		if err != errMoved {
			return h, err
		}
	}
	return nil, ErrGone
}

// errMoved says that a number passed on while it was looked at.
var errMoved = errors.New("the number has passed on")

func (f FS) called(home Home, of *Handle, n int, may func(pid int) bool, among func() ([]int, error)) (*Handle, error) {
	ask := f.namespace(of)
	defer ask.close()
	pid, told := ask.called(n)
	if !told {
		var err error
		if pid, err = f.search(home, n, may, among); err != nil {
			return nil, err
		}
	}
	if pid == 0 {
		return nil, ErrGone
	}
	h, err := f.Open(pid)
	if err != nil {
		return nil, errMoved
	}
	// From here on the number is its own for as long as it is not reaped. Is it still
	// what it was when it had yet to be held?
	ok := may == nil || may(pid)
	if told {
		again, _ := ask.called(n)
		names, err := f.NSpid(pid)
		if err == nil && h.Holds() && names[min(len(names), len(home.Names))-1] != n {
			h.Close()
			return nil, ErrGone // the kernel names the process of a thread, too
		}
		ok = ok && again == pid
	} else {
		same, known := f.lives(home, pid, n)
		ok = ok && (same || !known)
	}
	if !ok || !h.Holds() {
		h.Close()
		return nil, errMoved
	}
	return h, nil
}

func (f FS) among(among func() ([]int, error)) ([]int, error) {
	if among == nil {
		return f.Pids()
	}
	return among()
}

// search looks at every process for the one called n at home.
func (f FS) search(home Home, n int, may func(pid int) bool, among func() ([]int, error)) (int, error) {
	pids, err := f.among(among)
	if err != nil {
		return 0, err
	}
	var perhaps []int
	for _, pid := range pids {
		same, known := f.lives(home, pid, n)
		if known && !same || may != nil && !may(pid) {
			continue
		}
		if same {
			return pid, nil
		}
		perhaps = append(perhaps, pid)
	}
	switch len(perhaps) {
	case 0:
		return 0, ErrGone
	case 1:
		return perhaps[0], nil
	}
	return 0, ErrUnclear
}

// lives reports whether process pid is called n at home, and whether that is known:
// of who came from outside it is not.
func (f FS) lives(home Home, pid, n int) (same, known bool) {
	depth := len(home.Names)
	names, err := f.NSpid(pid)
	if err != nil || len(names) < depth || names[depth-1] != n {
		return false, true
	}
	if home.Init == (ID{}) {
		return false, false
	}
	first := f.init(pid, depth)
	return first == home.Init, first != ID{}
}

// Anywhere opens the only process that is called n in any PID namespace, of those that
// may returns true for, and of those that among lists, as for [FS.Called]. It is for a number whose speaker is gone, so that nobody can
// tell where he lived. The error is ErrGone or ErrUnclear.
func (f FS) Anywhere(n int, may func(pid int) bool, among func() ([]int, error)) (*Handle, error) {
	pids, err := f.among(among)
	if err != nil {
		return nil, err
	}
	var found []int
	for _, pid := range pids {
		if names, err := f.NSpid(pid); err == nil && slices.Contains(names, n) && may(pid) {
			found = append(found, pid)
		}
	}
	switch len(found) {
	case 0:
		return nil, ErrGone
	case 1:
	default:
		return nil, ErrUnclear
	}
	h, err := f.Open(found[0])
	if err != nil {
		return nil, err
	}
	names, err := f.NSpid(found[0])
	if err != nil || !slices.Contains(names, n) || !may(found[0]) || !h.Holds() {
		h.Close()
		return nil, ErrGone
	}
	return h, nil
}

// namespace holds the PID namespace of a process open; -1 where we may not.
type namespace int

func (f FS) namespace(of *Handle) namespace {
	if of == nil || of.id.PID == 0 {
		return -1
	}
	fd, err := retry(func() (int, error) {
		return unix.Open(f.path(of.id.PID, "ns/pid"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1
	}
	if !of.Holds() { // then it may be a stranger's
		unix.Close(fd)
		return -1
	}
	return namespace(fd)
}

func (a namespace) close() {
	if a >= 0 {
		unix.Close(int(a))
	}
}

// called asks the kernel who is called n there, 0 for nobody. told is false where it
// does not answer.
func (a namespace) called(n int) (pid int, told bool) {
	if a < 0 {
		return 0, false
	}
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(a), unix.NS_GET_TGID_FROM_PIDNS, uintptr(n))
	switch e {
	case 0:
		return int(r), r > 0
	case unix.ESRCH:
		return 0, true
	}
	return 0, false
}
