package ask

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"":                        "http://127.0.0.1:19119",
		"http://127.0.0.1:19119":  "http://127.0.0.1:19119",
		"http://127.0.0.1:19119/": "http://127.0.0.1:19119",
		"HTTP://localhost:1":      "http://localhost:1",
		"localhost:80":            "http://localhost:80",
		":80":                     "http://127.0.0.1:80",
		"[::1]:80":                "http://[::1]:80",
		"[fe80::1%eth0]:80":       "http://[fe80::1%eth0]:80",
	} {
		if a, err := New(address, ""); err != nil || a.Base() != want {
			t.Errorf("%q: %v, %v; want %s", address, a, err, want)
		}
		if a, err := New("", address); err != nil || a.Base() != want {
			t.Errorf("PODNOTIFY_ADDRESS=%q: %v, %v; want %s", address, a, err, want)
		}
	}
	if a, err := New("h:1", "h:2"); err != nil || a.Base() != "http://h:1" {
		t.Errorf("the flag does not win: %v, %v", a, err)
	}
	for address, want := range map[string]string{
		"localhost":        "no port",
		"http://localhost": "no port",
		"localhost:":       "no port",
		"[::1]":            "no port",
		"https://h:1":      "plain HTTP",
		"unix:/run/x":      "more than a host and a port",
		"unix:///run/x":    "plain HTTP",
		"http://h:1/x":     "more than a host and a port",
		"http://u@h:1":     "more than a host and a port",
		"http://h:1?x":     "more than a host and a port",
		"http://h:1#x":     "more than a host and a port",
		"h:0":              "out of range",
		"h:99999":          "out of range",
		"h:-1":             "out of range",
		"h:http":           "out of range",
		"::1:80":           "is no URL",
		"[::1:80":          "is no URL",
		"http://h:1\n":     "is no URL",
		"h\r\nX: y:1":      "is no URL",
	} {
		if a, err := New(address, ""); err == nil {
			t.Errorf("%q is accepted as %s", address, a.Base())
		} else if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want one line with %q", address, err, want)
		}
	}
}

// Answers as they come over the wire: what they are taken for, or what is said
// to be wrong with them.
var answers = []struct {
	text string
	code int
	body string
	err  string
}{
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", ""},
	{"HTTP/1.1 200 OK\r\ncontent-length:\t2 \r\n\r\nokay", 200, "ok", ""},
	{"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 6\r\n\r\nstart:", 503, "start:", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", ""},
	{"HTTP/1.0 200 OK\r\n\r\nto the end", 200, "to the end", ""},
	{"HTTP/1.1 200\r\n\r\n", 200, "", ""},
	{"HTTP/1.1 204 No Content\r\n\r\nx", 204, "", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok", ""},

	{"", 0, "", "unexpected EOF"},
	{"HTT", 0, "", "unexpected EOF"},
	{"HTTP/1.1 200 OK\r\nContent-Le", 0, "", "unexpected EOF"},
	{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", 0, "", "unexpected EOF"},

	{"SSH-2.0-x\r\n", 0, "", `it is not HTTP: "S`},
	{"\x15\x03\x01", 0, "", `it is not HTTP: "\x15`},
	{"HTTP/2 200", 0, "", `it is not HTTP`},
	{"HTTP/1.1 20x OK\r\n\r\n", 0, "", `its status code is "20x"`},
	{"HTTP/1.1 +20 OK\r\n\r\n", 0, "", `its status code is "+20"`},
	{"HTTP/1.1 100 Continue\r\n\r\n", 0, "", `its status code is "100"`},
	{"HTTP/1.1 999 x\r\n\r\n", 0, "", `its status code is "999"`},
	{"HTTP/1.1 2000 OK\r\n\r\n", 0, "", `its first line is`},
	{"HTTP/1.1\r\n\r\n", 0, "", `its first line is "HTTP/1.1"`},
	{"HTTP/1.x 200 OK\r\n\r\n", 0, "", `its first line is`},
	{"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0, "", `a line of its header is "no colon"`},
	{"HTTP/1.1 200 OK\r\nA: b\r\n folded: x\r\n\r\n", 0, "", `a line of its header is " folded: x"`},
	{"HTTP/1.1 200 OK\r\n: x\r\n\r\n", 0, "", `a line of its header is`},
	{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, "", `its Content-Length is "-1"`},
	{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", 0, "", `its Content-Length is`},
	{"HTTP/1.1 200 OK\r\nContent-Length: 16777217\r\n\r\n", 0, "", `it is longer than 16777216 bytes`},
	{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", 0, "", `it has two lengths, 1 and 2`},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0, "", `Transfer-Encoding "chunked"`},
	{"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 2*maxHead), 0, "", `its header is longer than 16384 bytes`},
}

func TestAnswers(t *testing.T) {
	for _, test := range answers {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(test.text), "by bytes": iotest.OneByteReader(strings.NewReader(test.text))} {
			code, body, err := read(r)
			if code != test.code || body != test.body || (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("%.60q %s: %d, %q, %v; want %d, %q, %s", test.text, name, code, body, err, test.code, test.body, test.err)
			}
		}
	}
}

// endless never stops sending.
type endless struct{ sent int }

func (e *endless) Read(p []byte) (int, error) {
	const head = "HTTP/1.1 200 OK\r\n\r\n"
	n := 0
	if e.sent < len(head) {
		n = copy(p, head[e.sent:])
	} else {
		n = copy(p, bytes.Repeat([]byte("x"), len(p)))
	}
	e.sent += n
	return n, nil
}

func TestEndlessAnswer(t *testing.T) {
	e := &endless{}
	if _, _, err := read(e); err == nil || !strings.Contains(err.Error(), "longer than") || e.sent > 3*maxBody {
		t.Errorf("%v after %d bytes", err, e.sent)
	}
}

// Whatever comes: no crash, and what is accepted is what net/http's own client
// would make of it.
func FuzzAnswer(f *testing.F) {
	for _, a := range answers {
		f.Add([]byte(a.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		code, body, err := read(bytes.NewReader(b))
		if err != nil {
			if code != 0 || body != "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%d, %q, %q", code, body, err)
			}
			return
		}
		if code < 200 || code > 599 || len(body) > len(b) || !bytes.Contains(b, []byte(body)) {
			t.Fatalf("%d, %q", code, body)
		}
	})
}

func ask(t *testing.T, address string, path string) (int, string, error) {
	t.Helper()
	a, err := New(address, "")
	if err != nil {
		t.Fatal(err)
	}
	return a.Get(t.Context(), path)
}

// The other end of the real thing: a server of net/http.
func TestGet(t *testing.T) {
	long := strings.Repeat("a line of a long answer\n", 100_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := r.Method + " " + r.URL.Path
		if r.URL.Path == "/long" {
			body = long
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		if strings.HasPrefix(r.URL.Path, "/no") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		io.WriteString(w, body)
	}))
	defer server.Close()
	for path, want := range map[string]int{"/yes": 200, "/no": 503, Page("/no", "a/b c%?#é"): 503} {
		plain, err := url.PathUnescape(path)
		if err != nil {
			t.Fatal(err)
		}
		if code, body, err := ask(t, server.URL, path); err != nil || code != want || body != "GET "+plain {
			t.Errorf("%s: %d, %q, %v; want %d", path, code, body, err, want)
		}
	}
	if code, body, err := ask(t, server.URL, "/long"); err != nil || code != 200 || body != long {
		t.Errorf("long: %d, %d bytes, %v", code, len(body), err)
	}
}

// rawServer answers every connection by f, once something was read from it.
func rawServer(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			f(c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// A podnotify in trouble is forgiven by --fail-open; a mistake, or something
// else at that address, is not.
func TestFailOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := l.Addr().String()
	l.Close()
	send := func(text string) string {
		return rawServer(t, func(c net.Conn) { io.WriteString(c, text); c.Close() })
	}
	for _, test := range []struct {
		name, address string
		open          bool
		says          string
	}{
		{"refused", refusing, true, "connection refused"},
		{"reset", rawServer(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }), true, "connection reset"},
		{"closed", send(""), true, "connection reset"},
		{"closed in the middle", send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), true, "connection reset"},
		{"not HTTP", send("SSH-2.0-x\r\n\r\n"), false, "is not HTTP"},
		{"chunked", send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), false, "Transfer-Encoding"},
		{"no such name", "nosuchhost.invalid:1", false, "nosuchhost.invalid"},
		{"no address", "http://", false, "no port"},
		{"a no", send("HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nno"), false, ""},
	} {
		c := Check{Question: "live", Address: test.address}
		line, yes, err := c.Run("")
		if yes || (test.says == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %q, %v, %v; want %q", test.name, line, yes, err, test.says)
		}
		c.FailOpen = true
		line, yes, err = c.Run("")
		if yes != test.open || yes && (err != nil || !strings.Contains(line, test.says) || !strings.Contains(line, "--fail-open")) {
			t.Errorf("%s with --fail-open: %q, %v, %v; want %v", test.name, line, yes, err, test.open)
		}
	}
}

// A podnotify that hangs is in trouble, too, and the check ends before the
// platform ends it.
func TestTimeoutIsOpen(t *testing.T) {
	hold := make(chan struct{})
	address := rawServer(t, func(c net.Conn) { <-hold; c.Close() })
	t.Cleanup(func() { close(hold) })
	for _, open := range []bool{true, false} {
		line, yes, err := Check{Question: "live", Address: address, FailOpen: open}.Run("")
		if yes != open || open && !strings.Contains(line, "does not answer (timed out)") || !open && (err == nil || !strings.Contains(err.Error(), ": timed out;")) {
			t.Errorf("--fail-open=%v: %q, %v, %v", open, line, yes, err)
		}
	}
}

// Wait asks until the answer is yes, and forgives meanwhile what may end.
func TestWait(t *testing.T) {
	var asked atomic.Int32
	address := rawServer(t, func(c net.Conn) {
		defer c.Close()
		switch asked.Add(1) {
		case 1: // closed
		case 2:
			io.WriteString(c, "HTTP/1.1 503 x\r\nContent-Length: 2\r\n\r\nno")
		default:
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	line, yes, err := Check{Question: "ready", Address: address, Wait: 30 * time.Second}.Run("")
	if line != "ok" || !yes || err != nil || asked.Load() != 3 {
		t.Errorf("%q, %v, %v; asked %d times", line, yes, err, asked.Load())
	}
}

func TestLine(t *testing.T) {
	for body, want := range map[string]string{"ok": "ok", "a\r\nb": "a", "a\x1b[2Jb\x00": `a\x1b[2Jb\x00`, "": ""} {
		if got := Line(body); got != want {
			t.Errorf("%q: %q, want %q", body, got, want)
		}
	}
	// What others wrote cannot move the cursor or end the line.
	for s, want := range map[string]string{"plain ü \"q\" \\": "plain ü \"q\" \\", "a\x1b[2Jb\r\n\x00": `a\x1b[2Jb\r\n\x00`, "\u202e": `\u202e`} {
		if got := Printable(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// A container that is gone leaves an address that nobody answers at: late it is
// a time-out, and once the kernel knows it is this.
func TestUnreachableIsOpen(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		e := &Error{DefaultAddress, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}}
		if !e.Open() {
			t.Errorf("%v is not forgiven", e)
		}
	}
	e := &Error{DefaultAddress, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EACCES)}}
	if e.Open() {
		t.Errorf("%v is forgiven", e)
	}
}

// A name that nobody resolves in time is a mistake as well: podnotify was not
// asked.
func TestSlowResolver(t *testing.T) {
	e := &Error{DefaultAddress, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "i/o timeout", Name: "podnotify", IsTimeout: true}}}
	if e.Open() {
		t.Errorf("%v is forgiven", e)
	}
}

func TestNegativeWait(t *testing.T) {
	if _, yes, err := (Check{Question: "ready", Wait: -1, FailOpen: true}).Run(""); yes || err == nil || !strings.Contains(err.Error(), "leave out --wait") {
		t.Errorf("%v, %v", yes, err)
	}
}
