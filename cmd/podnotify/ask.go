package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Where a running podnotify is asked, and for how long.
const (
	defaultAddress = "http://127.0.0.1:19119"
	oneRequest     = 5 * time.Second
	maxBody        = 16 << 20 // of /statusz with thousands of services
)

// asker asks a running podnotify over HTTP.
type asker struct {
	base   string // http://host:port, without a path
	client http.Client
}

// addAddressFlag defines --address.
func addAddressFlag(c *cobra.Command, address *string) {
	c.Flags().StringVar(address, "address", "", "URL or HOST:PORT of podnotify (default $PODNOTIFY_ADDRESS, else "+defaultAddress+")")
}

// asker finds podnotify by the flag, PODNOTIFY_ADDRESS or the default. It uses
// no proxy: podnotify is next door.
func (a *app) asker(flag string) (*asker, error) {
	address, origin := flag, "--address"
	if address == "" {
		address, origin = a.getenv("PODNOTIFY_ADDRESS"), "PODNOTIFY_ADDRESS"
	}
	if address == "" {
		address, origin = defaultAddress, "default"
	}
	bad := func(reason string) error {
		return fmt.Errorf("cannot use address %q (from %s): %s", address, origin, reason)
	}
	text := address
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, bad("is no URL; write it like " + defaultAddress)
	case u.Scheme != "http":
		return nil, bad("podnotify speaks plain HTTP; write http://")
	case u.Port() == "":
		return nil, bad("has no port; write it like " + defaultAddress)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, bad("is more than a host and a port; write it like " + defaultAddress)
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, bad("port is out of range")
	}
	host := u.Hostname()
	if host == "" { // as in --listen, where it is every address
		host = "127.0.0.1"
	}
	return &asker{
		base: "http://" + net.JoinHostPort(host, u.Port()),
		client: http.Client{
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// get asks once, for 5 s at most. An answer of any code is no error.
func (k *asker) get(ctx context.Context, path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, oneRequest)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.base+path, nil)
	if err != nil {
		return 0, "", err
	}
	answer, err := k.client.Do(r)
	if err != nil {
		return 0, "", k.unreachable(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return 0, "", k.unreachable(err)
	}
	return answer.StatusCode, string(text), nil
}

func (k *asker) unreachable(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the URL, which base says
	}
	return &unreachableError{k.base, err}
}

// unreachableError is podnotify not answering, as opposed to a bad answer.
type unreachableError struct {
	base string
	err  error
}

func (e *unreachableError) Error() string {
	return "cannot ask podnotify at " + e.base + ": " + e.reason() + "; is it running there?"
}

func (e *unreachableError) Unwrap() error { return e.err }

func (e *unreachableError) reason() string {
	switch {
	case e.timedOut():
		return "timed out"
	case errors.Is(e.err, syscall.ECONNREFUSED):
		return "connection refused"
	case e.reset():
		return "connection reset"
	}
	return e.err.Error()
}

func (e *unreachableError) timedOut() bool {
	n, ok := errors.AsType[net.Error](e.err)
	return ok && n.Timeout() || errors.Is(e.err, context.DeadlineExceeded)
}

// reset reports that the connection ended before the answer did.
func (e *unreachableError) reset() bool {
	return errors.Is(e.err, syscall.ECONNRESET) || errors.Is(e.err, syscall.EPIPE) ||
		errors.Is(e.err, io.EOF) || errors.Is(e.err, io.ErrUnexpectedEOF)
}

// open reports what --fail-open forgives: podnotify's trouble, which is not the
// daemon's. A name that cannot be resolved is a mistake, and is not forgiven.
func (e *unreachableError) open() bool {
	if _, ok := errors.AsType[*net.DNSError](e.err); ok {
		return false
	}
	return e.timedOut() || e.reset() || errors.Is(e.err, syscall.ECONNREFUSED)
}

// page is the path of a page, or of its part for one service.
func page(path, service string) string {
	if service == "" {
		return path
	}
	return path + "/" + url.PathEscape(service)
}

// firstLine is the answer of a probe, fit for a terminal.
func firstLine(body string) string {
	line, _, _ := strings.Cut(body, "\n")
	return printable(strings.TrimSuffix(line, "\r"))
}

// printable makes text that others wrote safe to show on one line of a terminal.
func printable(s string) string {
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

// pause waits between two questions: 50 ms at first, growing to 250 ms. It
// reports false when ctx is done.
type pause time.Duration

func (p *pause) wait(ctx context.Context) bool {
	*p = min(max(*p*5/4, pause(50*time.Millisecond)), pause(250*time.Millisecond))
	t := time.NewTimer(time.Duration(*p))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
