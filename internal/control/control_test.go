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
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/probes"
)

const (
	bound = 20 * time.Second // for what should take no time at all

	// askEnv makes the test binary a client: it runs prestop on the socket named
	// and prints what came of it.
	askEnv   = "PODNOTIFY_TEST_ASK"
	stranger = 65534 // the uid it gets
)

func TestMain(m *testing.M) {
	if path := os.Getenv(askEnv); path != "" {
		fmt.Print(Do(context.Background(), path, "prestop", nil))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// socketDir is short, as the path of a socket has to be, and open to others.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start serves h at a fresh path until the test ends.
func start(t *testing.T, h http.Handler) (path string) {
	t.Helper()
	path = filepath.Join(socketDir(t), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(bound):
			t.Error("Serve does not end")
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return path
}

func page(t *testing.T, method, path, target string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, "http://podnotify"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body), answer.Header
}

func TestVerbs(t *testing.T) {
	var got atomic.Value   // url.Values
	var calls atomic.Int32 // of verbs, from the server's goroutines
	path := start(t, Handler(probes.Handler(probes.Config{}), Verbs{
		"prestop": func(context.Context, url.Values) error { calls.Add(1); return nil },
		"kill": func(_ context.Context, args url.Values) error {
			calls.Add(1)
			got.Store(args)
			return errors.New("cannot signal <redis>:\nno main process")
		},
	}))
	ctx := context.Background()
	if err := Do(ctx, path, "prestop", nil); err != nil || calls.Load() != 1 {
		t.Errorf("prestop: %v after %d calls", err, calls.Load())
	}
	err := Do(ctx, path, "kill", url.Values{"service": {"redis"}, "signal": {"US R&1"}})
	if err == nil || err.Error() != `cannot signal &lt;redis&gt;:\nno main process` {
		t.Errorf("kill: %v", err)
	}
	if args, _ := got.Load().(url.Values); args.Get("service") != "redis" || args.Get("signal") != "US R&1" {
		t.Errorf("arguments %v", args)
	}
	if err := Do(ctx, path, "fly", nil); err == nil || err.Error() != `no verb "fly"; there are kill, prestop` {
		t.Errorf("fly: %v", err)
	}
	if err := Do(ctx, path, "kill", url.Values{"x": {strings.Repeat("a", maxForm)}}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("large: %v", err)
	}
	if calls.Load() != 2 {
		t.Errorf("%d calls", calls.Load())
	}
	if code, _, header := page(t, "GET", path, "/control/prestop"); code != 405 || header.Get("Allow") != "POST" || calls.Load() != 2 {
		t.Errorf("GET: %d %v, %d calls", code, header, calls.Load())
	}
	if code, body, _ := page(t, "GET", path, "/healthz"); code != 200 || body != "ok" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body, err := Get(ctx, path, "/healthz"); code != 200 || string(body) != "ok" || err != nil {
		t.Errorf("/healthz: %d %q, %v", code, body, err)
	}
	if code, _, header := page(t, "GET", path, "/statusz"); code != 200 || header.Get("Content-Type") != "application/json" {
		t.Errorf("/statusz: %d %v", code, header)
	}
}

// TestHangUp: a verb learns that nobody waits for it any more.
func TestHangUp(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	path := start(t, Handler(http.NotFoundHandler(), Verbs{
		"stop": func(ctx context.Context, _ url.Values) error {
			close(began)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		},
	}))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	if err := Do(ctx, path, "stop", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case <-ended:
	case <-time.After(bound):
		t.Error("the verb goes on")
	}
}

// TestEndWhileBusy: Serve ends although a verb does not.
func TestEndWhileBusy(t *testing.T) {
	l, err := Listen(filepath.Join(socketDir(t), "control"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	asked := make(chan error, 1)
	h := Handler(http.NotFoundHandler(), Verbs{
		"stop": func(ctx context.Context, _ url.Values) error { cancel(); <-ctx.Done(); return ctx.Err() },
	})
	go func() { asked <- Do(context.Background(), l.Addr().String(), "stop", nil) }()
	if err := Serve(ctx, l, h); err != nil {
		t.Error(err)
	}
	if err := <-asked; err == nil {
		t.Error("the verb succeeded")
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(socketDir(t), "control")
	old := syscall.Umask(0)
	l, err := Listen(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if l.Addr().String() != path {
		t.Errorf("address %s", l.Addr())
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) || !strings.HasPrefix(err.Error(), "cannot listen on "+path+": ") {
		t.Errorf("a second one: %v", err)
	}

	// What a killed podnotify leaves behind is replaced.
	l.(*listener).Listener.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("nothing stale to replace: %v", err)
	}
	next, err := Listen(path)
	if err != nil {
		t.Fatalf("a stale one: %v", err)
	}
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the old one removed the new one: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                               "no socket",
		filepath.Join(dir, "no", "c"):      "no such file",
		"/" + strings.Repeat("a", maxPath): "shorter --run-dir",
	} {
		l, err := Listen(path)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := socketDir(t)
	none := filepath.Join(dir, "none")
	stale := filepath.Join(dir, "stale")
	l, err := Listen(stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*listener).Listener.Close()
	for path, why := range map[string]string{none: "no such file or directory", stale: "connection refused"} {
		want := "cannot reach podnotify at " + path + ": " + why + "; is it running with this --run-dir?"
		if err := Do(context.Background(), path, "prestop", nil); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if err := Do(context.Background(), none, "prestop", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v hides its cause", err)
	}
}

// TestNoAnswer: a listener that is no podnotify, or dies.
func TestNoAnswer(t *testing.T) {
	path := filepath.Join(socketDir(t), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	}()
	if err := Do(context.Background(), path, "prestop", nil); err == nil || !strings.HasPrefix(err.Error(), "no answer from podnotify at "+path+": ") {
		t.Errorf("got %v", err)
	}
}

// TestAnswerBounded: an answer without an end is not kept.
func TestAnswerBounded(t *testing.T) {
	path := filepath.Join(socketDir(t), "control")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct {
		length int
		fits   bool
	}{{maxAnswer / 2, true}, {2 * maxAnswer, false}} {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", tt.length)
			for block := make([]byte, 1<<16); err == nil; {
				_, err = c.Write(block)
			}
		}()
		_, body, err := Get(context.Background(), path, "/statusz")
		if (err == nil) != tt.fits || tt.fits && len(body) != tt.length {
			t.Errorf("of an answer of %d bytes there are %d, %v", tt.length, len(body), err)
		}
	}
}

// TestNotUnix: without credentials nobody is answered.
func TestNotUnix(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, http.NotFoundHandler()) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Error(answer.Status)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestOtherUID: the mode keeps another user out, and where it does not, the
// kernel's word on who asks does.
func TestOtherUID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot become another user")
	}
	var calls atomic.Int32
	path := start(t, Handler(http.NotFoundHandler(), Verbs{
		"prestop": func(context.Context, url.Values) error { calls.Add(1); return nil },
	}))
	want := "cannot reach podnotify at " + path + ": permission denied; run the command as uid 0, which podnotify runs as"
	if got := askAs(t, stranger, path); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	want = "uid 65534 may not control this podnotify, which runs as uid 0; run the command as uid 0"
	if got := askAs(t, stranger, path); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if calls.Load() != 0 {
		t.Error("a stranger's verb was run")
	}
	if got := askAs(t, 0, path); got != "<nil>" || calls.Load() != 1 {
		t.Errorf("the same uid: %s after %d calls", got, calls.Load())
	}
}

// askAs runs prestop in a process of that uid.
func askAs(t *testing.T, uid uint32, path string) string {
	t.Helper()
	// The test binary's own directory may be closed to others.
	exe := filepath.Join(filepath.Dir(path), "ask")
	if _, err := os.Stat(exe); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Dir = "/"
	cmd.Env = []string{askEnv + "=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// TestManyConnections: who holds connections open loses them, and a command is heard.
func TestManyConnections(t *testing.T) {
	path := start(t, Handler(probes.Handler(probes.Config{}), Verbs{"prestop": func(context.Context, url.Values) error { return nil }}))
	var held []net.Conn
	for range 2 * maxConnections {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(bound))
		fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") // from now on it may be idle for a minute
		if answer, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
		held = append(held, c)
	}
	if err := Do(t.Context(), path, "prestop", nil); err != nil {
		t.Error(err)
	}
	for i, c := range held[:maxConnections] {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d is still open", i)
		}
	}
}

// TestArgumentsDrip: a request whose arguments do not come ends by itself.
func TestArgumentsDrip(t *testing.T) {
	path := start(t, Handler(probes.Handler(probes.Config{}), Verbs{"prestop": func(context.Context, url.Values) error { return nil }}))
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	fmt.Fprintf(c, "POST /control/prestop HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na=")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
		t.Errorf("%q, %v", answer, err)
	}
}
