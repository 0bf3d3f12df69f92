// Package ask asks a running podnotify over HTTP. It speaks as much of HTTP/1.1
// as that takes and links neither net/http nor net/url nor fmt: an exec probe
// pays for every package that is linked, each time. It never serves.
package ask

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultAddress is where podnotify answers unless it was told otherwise.
const DefaultAddress = "http://127.0.0.1:19119"

// oneRequest is how long an answer may take.
const oneRequest = 5 * time.Second

// Asker asks the podnotify at one address.
type Asker struct {
	host string        // host:port
	time time.Duration // for one answer
}

// New returns an asker for the address of the flag, else of PODNOTIFY_ADDRESS,
// else the default. It uses no proxy: podnotify is next door.
func New(flag, variable string) (*Asker, error) {
	address, origin := flag, "--address"
	if address == "" {
		address, origin = variable, "PODNOTIFY_ADDRESS"
	}
	if address == "" {
		address, origin = DefaultAddress, "default"
	}
	host, reason := hostOf(address)
	if reason != "" {
		return nil, errors.New("cannot use address " + strconv.Quote(address) + " (from " + origin + "): " + reason)
	}
	return &Asker{host, oneRequest}, nil
}

// hostOf is the host:port of an address, or what is wrong with the address.
func hostOf(address string) (host, reason string) {
	const like = "; write it like " + DefaultAddress
	text := address
	if scheme, rest, found := strings.Cut(address, "://"); found {
		if !strings.EqualFold(scheme, "http") {
			return "", "podnotify speaks plain HTTP; write http://"
		}
		text = rest
	}
	text = strings.TrimRight(text, "/")
	for i := range len(text) {
		switch c := text[i]; {
		case c <= ' ' || c == 0x7f || c == '"' || c == '<' || c == '>' || c == '\\':
			return "", "is no URL" + like
		case c == '/' || c == '?' || c == '#' || c == '@':
			return "", "is more than a host and a port" + like
		}
	}
	name, port, err := net.SplitHostPort(text)
	switch e, _ := errors.AsType[*net.AddrError](err); {
	case e != nil && e.Err == "missing port in address" || err == nil && port == "":
		return "", "has no port" + like
	case err != nil:
		return "", "is no URL" + like
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "port is out of range"
	}
	if name == "" { // as in --listen, where it is every address
		name = "127.0.0.1"
	}
	return net.JoinHostPort(name, port), ""
}

// Base is the URL that is asked, without a path.
func (a *Asker) Base() string { return "http://" + a.host }

// Get asks once, for 5 s at most. An answer of any code is no error; the error
// is an [*Error].
func (a *Asker) Get(ctx context.Context, path string) (code int, body string, err error) {
	code, body, err = a.get(ctx, path)
	if err != nil {
		return 0, "", &Error{a.Base(), err}
	}
	return code, body, nil
}

func (a *Asker) get(ctx context.Context, path string) (code int, body string, err error) {
	// A context of its own for each answer would cost an exec probe a twentieth more.
	// Keep-alive probes are four system calls for a connection of one answer.
	d := net.Dialer{Deadline: time.Now().Add(a.time), KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", a.host)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	_ = c.SetDeadline(d.Deadline)
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+a.host+"\r\nUser-Agent: podnotify\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, "", err
	}
	return read(c)
}

// Error is podnotify not answering, as opposed to its saying no.
type Error struct {
	Base string
	Err  error
}

func (e *Error) Error() string {
	if e.malformed() {
		return "cannot read the answer of " + e.Base + ": " + e.Err.Error() + "; is it podnotify that runs there?"
	}
	return "cannot ask podnotify at " + e.Base + ": " + e.Reason() + "; is it running there?"
}

func (e *Error) Unwrap() error { return e.Err }

// Reason says in a few words why there was no answer.
func (e *Error) Reason() string {
	switch {
	case e.timedOut():
		return "timed out"
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "connection refused"
	case e.reset():
		return "connection reset"
	}
	if op, ok := errors.AsType[*net.OpError](e.Err); ok {
		return op.Err.Error() // without the address, which Base says
	}
	return e.Err.Error()
}

func (e *Error) timedOut() bool {
	n, ok := errors.AsType[net.Error](e.Err)
	return ok && n.Timeout() || errors.Is(e.Err, context.DeadlineExceeded)
}

// reset reports that the connection ended before the answer did.
func (e *Error) reset() bool {
	return errors.Is(e.Err, syscall.ECONNRESET) || errors.Is(e.Err, syscall.EPIPE) || errors.Is(e.Err, io.ErrUnexpectedEOF)
}

func (e *Error) malformed() bool {
	_, ok := errors.AsType[malformed](e.Err)
	return ok
}

// Open reports what --fail-open forgives: podnotify's trouble, which is not the
// daemon's. "No route to host" is what the kernel makes of a connection that is
// late to a container that is gone, and "network is unreachable" of one whose
// network is. A name that cannot be resolved is a mistake, and is not forgiven.
func (e *Error) Open() bool {
	if _, ok := errors.AsType[*net.DNSError](e.Err); ok {
		return false
	}
	return e.timedOut() || e.reset() || errors.Is(e.Err, syscall.ECONNREFUSED) ||
		errors.Is(e.Err, syscall.EHOSTUNREACH) || errors.Is(e.Err, syscall.ENETUNREACH)
}

// Page is the path of a page, or of its part for one service.
func Page(path, service string) string {
	if service == "" {
		return path
	}
	const hex = "0123456789ABCDEF"
	b := []byte(path + "/")
	for i := range len(service) {
		switch c := service[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// Line is the first line of an answer, fit for a terminal.
func Line(body string) string {
	line, _, _ := strings.Cut(body, "\n")
	return Printable(strings.TrimSuffix(line, "\r"))
}

// Printable makes text that others wrote safe to show on one line of a terminal.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// Pause waits between two questions: 50 ms at first, growing to 250 ms.
type Pause time.Duration

// Wait reports false when ctx is done.
func (p *Pause) Wait(ctx context.Context) bool {
	*p = min(max(*p*5/4, Pause(50*time.Millisecond)), Pause(250*time.Millisecond))
	t := time.NewTimer(time.Duration(*p))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
