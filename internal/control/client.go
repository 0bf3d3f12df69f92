package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// base is the URL of every control socket: the host is not used.
const base = "http://podnotify"

// maxAnswer bounds the answer to a verb, in bytes.
const maxAnswer = 64 << 10

// Client speaks HTTP to the control socket at path, whatever the host of the
// URL. It keeps no connections.
func Client(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "unix", path)
			if err != nil {
				return nil, unreachable(path, err)
			}
			return c, nil
		},
	}}
}

// Do runs one verb on the podnotify that listens at path and waits for it. The
// error says what that podnotify says, or why it cannot be reached.
func Do(ctx context.Context, path, verb string, args url.Values) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+prefix+url.PathEscape(verb), strings.NewReader(args.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := send(path, r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("cannot read the answer of podnotify at %s: %w", path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

// Get asks the podnotify that listens at path for a page such as /statusz. The
// caller closes the body.
func Get(ctx context.Context, path, page string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+page, nil)
	if err != nil {
		return nil, err
	}
	return send(path, r)
}

// send takes off the words net/http puts around an error: the URL means nothing
// to who typed a command.
func send(path string, r *http.Request) (*http.Response, error) {
	answer, err := Client(path).Do(r)
	if err == nil {
		return answer, nil
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if _, ok := errors.AsType[*unreachableError](err); ok {
		return nil, err
	}
	return nil, fmt.Errorf("no answer from podnotify at %s: %w", path, err)
}

type unreachableError struct {
	path, cure string
	err        error
}

func (e *unreachableError) Error() string {
	return "cannot reach podnotify at " + e.path + ": " + e.err.Error() + "; " + e.cure
}

func (e *unreachableError) Unwrap() error { return e.err }

func unreachable(path string, err error) error {
	err = reason(err)
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err // "connection refused" without "connect:"
	}
	cure := "is it running with this --run-dir?"
	if errors.Is(err, fs.ErrPermission) {
		cure = "run the command as the uid that podnotify runs as"
		if fi, e := os.Lstat(path); e == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				cure = fmt.Sprintf("run the command as uid %d, which podnotify runs as", st.Uid)
			}
		}
	}
	return &unreachableError{path: path, cure: cure, err: err}
}
