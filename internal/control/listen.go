package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// maxPath is the longest path of a unix socket: sun_path of unix(7) has 108
// bytes, one of them for the NUL.
const maxPath = 107

// ErrInUse is what Listen wraps where another process listens already.
var ErrInUse = errors.New("another process listens there")

// Listen binds the control socket at path with mode 0600. A socket that nobody
// listens on any more is replaced, a live one is refused with [ErrInUse], and so
// is a file that is no socket. It appears under its name only when it is ready.
// Closing the listener removes it, unless another one has its place by then.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (net.Listener, error) {
	temp := filepath.Join(filepath.Dir(path), ".c"+rand.Text()[:6])
	if n := max(len(path), len(temp)); n > maxPath {
		return nil, fmt.Errorf("a name there has %d bytes and %d are possible; choose a shorter --run-dir", n, maxPath)
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	// Linux gives the file the mode of the socket, so it is never more open than
	// it shall be.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return os.NewSyscallError("fchmod", err)
	}}
	bound, err := config.Listen(context.Background(), "unix", temp)
	if err != nil {
		return nil, reason(err)
	}
	bound.(*net.UnixListener).SetUnlinkOnClose(false) // it would remove temp
	l := &listener{Listener: bound, path: path}
	if l.file, err = os.Lstat(temp); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		os.Remove(temp)
		bound.Close()
		return nil, err
	}
	return l, nil
}

// vacant reports, by nil, that a socket may be put at path.
func vacant(path string) error {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Type() != fs.ModeSocket:
		return errors.New("a file that is no socket is there; remove it or choose another --run-dir")
	}
	c, err := net.Dial("unix", path)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("%w; stop it or choose another --run-dir (see ss -xlp)", ErrInUse)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("cannot tell whether the socket there is alive: %w", reason(err))
}

// reason is what went wrong without the address, which the caller names.
func reason(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

type listener struct {
	net.Listener
	path string
	file os.FileInfo
}

// Addr is the path the socket was renamed to.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the path while the socket lives: nobody replaces it until then.
func (l *listener) Close() error {
	if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.file) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}
