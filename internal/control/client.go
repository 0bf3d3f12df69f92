package control

import (
	"bufio"
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

// maxAnswer bounds an answer, in bytes: /statusz with thousands of services.
const maxAnswer = 16 << 20

// Do runs one verb on the podnotify that listens at path and waits for it. The
// error says what that podnotify says, or why it cannot be reached; it is a Note
// if the verb was done.
func Do(ctx context.Context, path, verb string, args url.Values) error {
	code, body, err := ask(ctx, path, "POST", prefix+url.PathEscape(verb), args.Encode())
	if said := strings.TrimSpace(string(body)); err == nil && code == http.StatusOK && said != done {
		return Note(said)
	}
	if err == nil && code != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	return err
}

// Get asks the podnotify that listens at path for a page such as /statusz. An
// answer of any code is no error.
func Get(ctx context.Context, path, page string) (code int, body []byte, err error) {
	return ask(ctx, path, "GET", page, "")
}

// ask writes a request by hand: http.Client would be a third of a megabyte in every
// pod, most of it TLS.
func ask(ctx context.Context, path, method, page, form string) (code int, body []byte, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return 0, nil, unreachable(path, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()

	_, unsent := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: podnotify\r\nConnection: close\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", method, page, len(form), form)
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, maxAnswer)), nil) // also of a request that was refused half-way
	if err == nil {
		code = answer.StatusCode
		body, err = io.ReadAll(answer.Body)
		answer.Body.Close()
	}
	switch {
	case err == nil:
		return code, body, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case unsent != nil:
		err = unsent
	}
	return 0, nil, fmt.Errorf("no answer from podnotify at %s: %w", path, err)
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
