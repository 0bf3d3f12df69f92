package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// puppet is a service that does at once what it is told, and counts.
type puppet struct {
	name string
	acts int
	now  lifecycle.Snapshot
}

func (p *puppet) act() error                { p.acts++; return nil }
func (p *puppet) Name() string              { return p.name }
func (p *puppet) Policy() *lifecycle.Policy { q := lifecycle.DefaultPolicy(); return &q }
func (p *puppet) Look() *lifecycle.Snapshot { return &p.now }
func (p *puppet) Prestop()                  { p.acts++ }
func (p *puppet) Reload() error {
	p.now.Reload = lifecycle.ReloadInfo{Asked: 1, Began: true, Done: true}
	return p.act()
}
func (p *puppet) Stop() error            { return p.act() }
func (p *puppet) Respawn() error         { return p.act() }
func (p *puppet) Kill(unix.Signal) error { return p.act() }
func number(word string) (unix.Signal, error) {
	if s := unix.SignalNum("SIG" + word); s != 0 {
		return s, nil
	}
	return 0, Note("no signal " + word)
}

// dealt is a listener that has one connection to give.
type dealt struct {
	conn chan net.Conn
	end  chan struct{}
}

func (d *dealt) Accept() (net.Conn, error) {
	select {
	case c := <-d.conn:
		return c, nil
	case <-d.end:
		return nil, http.ErrServerClosed
	}
}
func (d *dealt) Close() error   { return nil }
func (d *dealt) Addr() net.Addr { return &net.UnixAddr{Name: "@fuzz", Net: "unix"} }

// pair is two ends of a unix connection, whose peer is this process.
func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// FuzzRequests writes any bytes to the control socket. Whatever they are, each answer
// is one, none holds a control character, and nothing acts but a POST, once.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		"GET /statusz HTTP/1.1\r\nHost: p\r\n\r\n",
		"GET /control/stop HTTP/1.1\r\nHost: p\r\n\r\n",
		"POST /control/prestop HTTP/1.1\r\nHost: p\r\n\r\nPOST /control/stop?service=a HTTP/1.0\r\n\r\n",
		"POST /control/kill HTTP/1.1\r\nHost: p\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 20\r\n\r\nservice=a&signal=HUP",
		"POST /control/kill?service=b&signal=%0a%1b HTTP/1.1\r\nHost: p\r\n\r\n",
		"POST /control/reload?service=%00%ff HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /control/respawn?service=b HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
		"POST /control/../control/%73top?no-wait=1&service=a HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"POST /control/stop HTTP/1.1\r\nHost: p\r\nX: " + strings.Repeat("x", 16<<10) + "\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte("HEAD ")) {
			return // its answer cannot be told from the next one without knowing that it is one
		}
		a, c := &puppet{name: "a"}, &puppet{name: "b"}
		actor := Actor{
			All: func() []Service { return []Service{a, c} },
			Named: func(name string) Service {
				switch name {
				case "a":
					return a
				case "b":
					return c
				}
				return nil
			},
			Signal: number,
		}
		read := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "read") })
		ctx, cancel := context.WithCancel(context.Background())
		l := &dealt{conn: make(chan net.Conn, 1), end: make(chan struct{})}
		served := make(chan struct{})
		go func() { _ = Serve(ctx, l, Handler(read, actor.Verbs())); close(served) }()
		ours, theirs := pair(t)
		l.conn <- theirs
		go func() { // a server that has heard enough reads no more
			_, _ = ours.Write(b)
			_ = ours.CloseWrite()
		}()
		answers, posts := 0, bytes.Count(b, []byte("POST "))
		for r := bufio.NewReader(ours); ; {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				break
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusContinue {
				continue
			}
			answers++
			if errors.Is(err, unix.ECONNRESET) {
				err = nil // it has heard enough, and not read the rest
			}
			if err != nil || !utf8.Valid(body) || bytes.ContainsFunc(bytes.TrimSuffix(body, []byte("\n")), unicode.IsControl) {
				t.Errorf("answer %d: %d %q, %v", answers, resp.StatusCode, body, err)
			}
			if resp.Close {
				break
			}
		}
		ours.Close()
		cancel()
		close(l.end)
		<-served
		if max(a.acts, c.acts) > posts { // prestop is for both
			t.Errorf("%d and %d acts of %d POSTs", a.acts, c.acts, posts)
		}
	})
}
