package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/display"
	"github.com/podnotify/podnotify/internal/logs"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// enough is for what must happen, on however busy a machine.
const enough = "30s"

// service is one that a podnotify under test serves.
type service struct {
	name   string
	policy lifecycle.Policy
	look   atomic.Pointer[lifecycle.Snapshot]
}

func (s *service) Name() string              { return s.name }
func (s *service) Policy() *lifecycle.Policy { return &s.policy }
func (s *service) Look() *lifecycle.Snapshot { return s.look.Load() }

func (s *service) Command(main lifecycle.ProcID) string {
	if main.PID == 42 && s.name == "redis" {
		return "redis-server *:6379"
	}
	return ""
}

var (
	since = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

	absent   = lifecycle.Snapshot{}
	starting = lifecycle.Snapshot{Phase: lifecycle.Starting, Since: since, Main: lifecycle.ProcID{PID: 42, Start: 1}}
	ready    = lifecycle.Snapshot{
		Phase: lifecycle.Ready, Since: since, Main: lifecycle.ProcID{PID: 42, Start: 1}, Started: true, GateOpen: true,
		Status: "Serving <\x1b[31mall\nof it>",
	}
	ended = lifecycle.Snapshot{Phase: lifecycle.Gone, Since: since, Started: true}
)

func newService(name string, s lifecycle.Snapshot) *service {
	out := &service{name: name, policy: lifecycle.DefaultPolicy()}
	out.look.Store(&s)
	return out
}

// podnotify serves some services as a podnotify does, and returns its address.
func podnotify(t *testing.T, services ...*service) string {
	t.Helper()
	c := probes.Config{Healthy: func() error { return nil }}
	for _, s := range services {
		c.Services = append(c.Services, s)
	}
	return serve(t, probes.Handler(c))
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// command runs podnotify's main with the arguments, and returns what it leaves.
func command(environ []string, args ...string) (code int, stdout, stderr string) {
	var o, e bytes.Buffer
	code = run(args, strings.NewReader(""), &o, &e, environ)
	return code, o.String(), e.String()
}

func TestHealthcheck(t *testing.T) {
	address := podnotify(t, newService("redis", ready), newService("web", starting))
	for _, test := range []struct {
		args   string
		code   int
		stdout string
	}{
		{"ready --service redis", 0, "ok\n"},
		{"--service web", 1, "start: "},
		{"", 1, "web: start: "},
		{"startup --service redis", 0, "ok\n"},
		{"startup --service web", 1, "start: "},
		{"live", 0, "ok\n"},
		{"live --service web", 0, "ok\n"},
		{"bound", 0, "ok\n"},
		{"ready --service nobody", 1, `no service "nobody"`},
		{"ready --service web --fail-open", 1, "start: "}, // the daemon's no stays a no
		{"ready --service redis/../web", 1, "no service"},
	} {
		args := append([]string{"healthcheck", "--address", address}, strings.Fields(test.args)...)
		code, stdout, stderr := command(nil, args...)
		if code != test.code || !strings.HasPrefix(stdout, test.stdout) || strings.Count(stdout, "\n") != 1 || stderr != "" {
			t.Errorf("%s: code %d, %q, %q; want %d, %q", test.args, code, stdout, stderr, test.code, test.stdout)
		}
	}
	if code, _, stderr := command([]string{"PODNOTIFY_ADDRESS=" + address}, "healthcheck", "bound"); code != 0 {
		t.Errorf("by PODNOTIFY_ADDRESS: code %d, %s", code, stderr)
	}
	if code, _, stderr := command([]string{"PODNOTIFY_ADDRESS=127.0.0.1:1"}, "healthcheck", "bound", "--address", strings.TrimPrefix(address, "http://")+"/"); code != 0 {
		t.Errorf("by --address without scheme: code %d, %s", code, stderr)
	}
}

func TestHealthcheckWaits(t *testing.T) {
	s := newService("redis", starting)
	asked := make(chan struct{}, 1000)
	inner := probes.Handler(probes.Config{Services: []probes.Source{s}, Healthy: func() error { return nil }})
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		asked <- struct{}{}
	}))
	go func() {
		<-asked
		<-asked
		s.look.Store(&ready)
	}()
	if code, stdout, stderr := command(nil, "healthcheck", "--address", address, "--wait", enough); code != 0 || stdout != "ok\n" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

func TestWait(t *testing.T) {
	for _, test := range []struct {
		word          string
		before, after lifecycle.Snapshot
	}{
		{"started", starting, ready},
		{"ready", starting, ready},
		{"gone", ready, ended},
		{"gone", ready, absent},
	} {
		for _, flags := range [][]string{nil, {"--service", "redis"}} {
			s := newService("redis", test.before)
			address := podnotify(t, s)
			args := append([]string{"wait", "--for", test.word, "--address", address}, flags...)
			if code, _, stderr := command(nil, append(args, "--timeout", "20ms")...); code != exitTimedOut || !strings.Contains(stderr, "any longer than 20ms") {
				t.Errorf("%s before: code %d, %q", test.word, code, stderr)
			}
			s.look.Store(&test.after)
			if code, stdout, stderr := command(nil, append(args, "--timeout", enough)...); code != 0 || stdout+stderr != "" {
				t.Errorf("%s after: code %d, %q, %q", test.word, code, stdout, stderr)
			}
		}
	}
	address := podnotify(t, newService("redis", starting))
	if code, _, stderr := command(nil, "wait", "--for", "bound", "--address", address); code != 0 {
		t.Errorf("bound: code %d, %s", code, stderr)
	}
	if code, _, stderr := command(nil, "wait", "--for", "ready", "--address", address, "--service", "nobody"); code != exitFailed || !strings.Contains(stderr, `no service "nobody"`) {
		t.Errorf("nobody: code %d, %q", code, stderr)
	}
}

// wait is begun before there is a podnotify.
func TestWaitForPodnotify(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	done := make(chan int)
	go func() {
		code, _, _ := command(nil, "wait", "--for", "bound", "--timeout", enough, "--address", address)
		done <- code
	}()
	select {
	case code := <-done:
		t.Fatalf("ended with %d while nobody listened", code)
	case <-time.After(100 * time.Millisecond): // not a condition: it has been refused by now, most likely
	}
	if l, err = net.Listen("tcp", address); err != nil {
		<-done
		t.Skipf("another process took the port meanwhile: %v", err)
	}
	server := httptest.NewUnstartedServer(probes.Handler(probes.Config{Healthy: func() error { return nil }}))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	defer server.Close()
	if code := <-done; code != 0 {
		t.Errorf("code %d", code)
	}
}

func TestStatus(t *testing.T) {
	crashed := ended
	crashed.LastExit = &lifecycle.LastExit{Exit: lifecycle.Exit{Known: true, Code: 3}, Who: lifecycle.ProcID{PID: 41}, At: since, Reason: "exited"}
	late := starting
	late.Facts.Warnings = []string{"run-dir is full"}
	services := []*service{newService("redis", ready), newService("web", late), newService("db", crashed)}
	address := podnotify(t, services...)
	for _, test := range []struct {
		args string
		code int
	}{{"", 4}, {"redis", 0}, {"web", 3}, {"db", 4}, {"nobody", 4}} {
		for _, format := range []string{"text", "json"} {
			code, _, stderr := command(nil, append([]string{"status", "--address", address, "-o", format}, strings.Fields(test.args)...)...)
			if code != test.code || (stderr != "") != (test.args == "nobody") {
				t.Errorf("status %s -o %s: code %d, %q; want %d", test.args, format, code, stderr, test.code)
			}
		}
	}
	if code, _, _ := command(nil, "status", "--address", podnotify(t, services[:2]...)); code != exitNotReady {
		t.Errorf("ready and starting: code %d, want the worse one", code)
	}

	_, stdout, _ := command(nil, "status", "--address", address, "-o", "json")
	var all probes.Statuses
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || all.Schema != probes.Schema || len(all.Services) != 3 {
		t.Fatalf("%v: %s", err, stdout)
	}
	want := `● redis
       Phase: ready since 2026-01-02 03:04:05 UTC; 1m30s ago
    Main PID: 42 (redis-server *:6379)
      Status: "Serving <\x1b[31mall\nof it>"

○ web
       Phase: starting since 2026-01-02 03:04:05 UTC; 1m30s ago
    Main PID: 42
       Fails: start [startup, ready]: ` + reasonOf(t, services[1], "start") + `
     Warning: run-dir is full

× db
       Phase: gone since 2026-01-02 03:04:05 UTC; 1m30s ago
   Last exit: exited, code 3 at 2026-01-02 03:04:05 UTC
       Fails: process [ready]: ` + reasonOf(t, services[2], "process") + `
       Fails: start [ready]: ` + reasonOf(t, services[2], "start") + `
`
	if diff := cmp.Diff(want, display.Text(all.Services, since.Add(90*time.Second))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Everything that status can show of one service.
func TestStatusInFull(t *testing.T) {
	s := lifecycle.Snapshot{
		Phase: lifecycle.Ready, Since: since, Started: true, GateOpen: true, Paused: true, Errno: 28, Respawns: 4,
		Main: lifecycle.ProcID{PID: 42, Start: 1}, Status: "Serving", Watchdog: 1500 * time.Millisecond, PingAt: since.Add(88 * time.Second),
		LastExit: &lifecycle.LastExit{Exit: lifecycle.Exit{Known: true, Signal: 6}, Who: lifecycle.ProcID{PID: 41}, At: since, Reason: "killed"},
		Facts: lifecycle.Facts{InnerPID: 7, Container: "cache", ErrnoName: "ENOSPC",
			Dropped: map[string]uint64{"not-admitted": 3, "access": 1}, UnknownKeys: map[string]uint64{"X_\x1b": 2}},
	}
	quiet := starting
	quiet.Watchdog = 2 * time.Second
	next := ended
	next.Respawns, next.RespawnAt = 1, since.Add(95*time.Second)
	now := since.Add(90 * time.Second)
	var all []probes.Status
	for i, look := range []lifecycle.Snapshot{s, quiet, next} {
		all = append(all, probes.StatusOf(newService([]string{"redis", "web", "db"}[i], look), now))
	}
	want := `× redis
       Phase: ready (paused) since 2026-01-02 03:04:05 UTC; 1m30s ago
    Main PID: 42 (redis-server *:6379), process 7 in its own PID namespace
   Container: cache
      Status: "Serving"
       Errno: 28 ENOSPC
    Watchdog: ping 2s ago, due every 1.5s
    Respawns: 4
   Last exit: killed, signal ABRT at 2026-01-02 03:04:05 UTC
     Dropped: access 1, not-admitted 3
Unknown keys: X_\x1b 2
       Fails: paused [ready]: process 42 is stopped by a signal; kill -CONT 42 continues it
       Fails: errno [ready]: the daemon reported errno 28 (ENOSPC)

○ web
       Phase: starting since 2026-01-02 03:04:05 UTC; 1m30s ago
    Main PID: 42
    Watchdog: no ping so far, due every 2s
       Fails: start [startup, ready]: not ready yet: no READY=1 and no stop so far

× db
       Phase: gone since 2026-01-02 03:04:05 UTC; 1m30s ago
    Respawns: 1
     Respawn: at 2026-01-02 03:05:40 UTC; in 5s
       Fails: process [ready]: no main process
       Fails: start [ready]: not ready yet: no READY=1 and no stop so far
`
	if diff := cmp.Diff(want, display.Text(all, now)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// watching runs status --watch until the test ends, and gives what it prints,
// a line at a time.
func watching(t *testing.T, out *os.File, in io.Reader, args ...string) *bufio.Scanner {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &app{stdin: strings.NewReader(""), stdout: out, stderr: out}
	root := newRootCommand(a)
	root.SetArgs(append([]string{"status", "--watch"}, args...))
	done := make(chan error, 1)
	go func() {
		err := root.ExecuteContext(ctx)
		out.Close()
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("status --watch: %v", err)
		}
	})
	return bufio.NewScanner(in)
}

func next(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("nothing more is printed: %v", lines.Err())
	}
	return lines.Text()
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { r.Close() })
	return r, w
}

// Not on a terminal: a line for each change, and none for what is as it was.
func TestStatusWatch(t *testing.T) {
	s := newService("redis", starting)
	down := atomic.Bool{}
	inner := probes.Handler(probes.Config{Services: []probes.Source{s, newService("web", ready)}, Healthy: func() error { return nil }})
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	}))
	r, w := pipe(t)
	lines := watching(t, w, r, "--address", address)
	is := func(want string) {
		t.Helper()
		got := next(t, lines)
		if when, line, ok := strings.Cut(got, " UTC "); ok {
			if _, err := time.Parse("2006-01-02 15:04:05", when); err != nil {
				t.Errorf("%q begins with no time", got)
			}
			got = line
		}
		if got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	is(`○ redis starting, process 42; start: ` + reasonOf(t, s, "start"))
	is(`● web ready, process 42; "Serving <\x1b[31mall\nof it>"`)
	s.look.Store(&ready)
	is(`● redis ready, process 42; "Serving <\x1b[31mall\nof it>"`)
	down.Store(true)
	is("podnotify: cannot ask podnotify at " + address + ": connection reset; is it running there?")
	down.Store(false)
	older := ready
	older.PingAt, older.Facts.Datagrams = since, 7 // no change
	s.look.Store(&older)
	s.look.Store(&ended)
	is(`× redis gone; process: ` + reasonOf(t, s, "process"))
}

func TestStatusWatchJSON(t *testing.T) {
	s := newService("redis", starting)
	r, w := pipe(t)
	lines := watching(t, w, r, "--address", podnotify(t, s), "-o", "json", "redis")
	for _, look := range []lifecycle.Snapshot{starting, ready, ended} {
		s.look.Store(&look)
		var got probes.Status
		for got.Phase != look.Phase.String() { // the first may have come twice
			if err := json.Unmarshal([]byte(next(t, lines)), &got); err != nil || got.Name != "redis" || got.Schema != probes.Schema {
				t.Fatalf("%v: %+v", err, got)
			}
		}
	}
}

// On a terminal all of it is drawn again, in place.
func TestStatusWatchScreen(t *testing.T) {
	s := newService("redis", starting)
	master, slave := terminal(t)
	lines := watching(t, slave, master, "--address", podnotify(t, s))
	if got := next(t, lines); !strings.HasPrefix(got, "\x1b[2J\x1b[H○ redis\x1b[K") {
		t.Fatalf("begins with %q", got)
	}
	s.look.Store(&ready)
	for {
		got := next(t, lines)
		if strings.Contains(got, "\x1b[2J") {
			t.Fatalf("cleared twice: %q", got)
		}
		if strings.Contains(got, "\x1b[H● redis\x1b[K") {
			return
		}
	}
}

// terminal is a pseudo terminal: what is written to slave is read from master.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	return master, slave
}

// The first answer has to be one.
func TestStatusWatchOfNothing(t *testing.T) {
	if code, _, stderr := command(nil, "status", "--watch", "--address", "127.0.0.1:1"); code != exitNoDaemon || !strings.Contains(stderr, "connection refused") {
		t.Errorf("code %d, %q", code, stderr)
	}
	if code, _, stderr := command(nil, "status", "--watch", "--address", podnotify(t), "nobody"); code != exitNoDaemon || !strings.Contains(stderr, `no service "nobody"`) {
		t.Errorf("code %d, %q", code, stderr)
	}
}

// reasonOf is what lifecycle, which owns the words, says of a failing check.
func reasonOf(t *testing.T, s *service, check string) string {
	t.Helper()
	for _, c := range s.Look().Checks(s.Policy()) {
		if c.Name == check && !c.OK() {
			return c.Reason
		}
	}
	t.Fatalf("%s of %s does not fail", check, s.name)
	return ""
}

func TestStatusOfSomethingElse(t *testing.T) {
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }))
	for _, args := range [][]string{{"status"}, {"wait", "--for", "gone"}} {
		if code, _, stderr := command(nil, append(args, "--address", address)...); code != exitFailed || !strings.Contains(stderr, "cannot read the answer") {
			t.Errorf("%s: code %d, %q", args, code, stderr)
		}
	}
}

func TestPrestop(t *testing.T) {
	dir := t.TempDir()
	l, err := control.Listen(filepath.Join(dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	verbs := control.Verbs{"prestop": func(context.Context, url.Values) error {
		if asked++; asked > 1 {
			return errors.New("cannot stop twice")
		}
		return nil
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- control.Serve(ctx, l, control.Handler(probes.Handler(probes.Config{Healthy: func() error { return nil }}), verbs))
	}()
	// What is wrong with the services does not keep a container from stopping.
	file := filepath.Join(dir, "f.yaml")
	if err := os.WriteFile(file, []byte("run-dir: "+dir+"\nservices: [{zzz: 1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := command(nil, "prestop", "--config", file); code != 0 || stdout+stderr != "" || asked != 1 {
		t.Errorf("code %d, %q, %q; asked %d times", code, stdout, stderr, asked)
	}
	if code, _, stderr := command([]string{"PODNOTIFY_RUN_DIR=" + dir}, "prestop"); code != exitFailed || stderr != "podnotify: cannot stop twice\n" {
		t.Errorf("code %d, %q", code, stderr)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// heard is one datagram: its text, and how many descriptors came with it.
type heard struct {
	text string
	fds  int
}

// hear receives n datagrams and closes what comes with them, which is what a
// barrier waits for.
func hear(t *testing.T, c *net.UnixConn, n int) (out []heard) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	b, oob := make([]byte, notify.MaxDatagram), make([]byte, 4096)
	for range n {
		k, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil {
			t.Errorf("after %d datagrams: %v", len(out), err)
			return out
		}
		h := heard{text: string(b[:k])}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Error(err)
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				t.Error(err)
			}
			for _, fd := range fds {
				unix.Close(fd)
				h.fds++
			}
		}
		out = append(out, h)
	}
	return out
}

func TestSend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	environ := []string{"NOTIFY_SOCKET=" + path}
	kept, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // inherited ones are not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	barrier := heard{"BARRIER=1", 1}
	for _, test := range []struct {
		args []string
		want []heard
	}{
		{[]string{"--ready"}, []heard{{"READY=1", 0}, barrier}},
		{[]string{"--ready", "--no-barrier"}, []heard{{"READY=1", 0}}},
		{[]string{"--ready", "--status=up and = running"}, []heard{{"READY=1\nSTATUS=up and = running", 0}, barrier}},
		{[]string{"--status="}, []heard{{"STATUS=", 0}, barrier}},
		{[]string{"--stopping", "--watchdog"}, []heard{{"STOPPING=1\nWATCHDOG=1", 0}, barrier}},
		{[]string{"--pid=17"}, []heard{{"MAINPID=17", 0}, barrier}},
		{[]string{"--pid", "X=1"}, []heard{{"MAINPID=" + strconv.Itoa(os.Getppid()) + "\nX=1", 0}, barrier}},
		{[]string{"ERRNO=2", "X_Y=a=b"}, []heard{{"ERRNO=2\nX_Y=a=b", 0}, barrier}},
		{[]string{"--fd", strconv.Itoa(kept), "--fdname", "null"}, []heard{{"FDSTORE=1\nFDNAME=null", 1}, barrier}},
	} {
		type left struct {
			code           int
			stdout, stderr string
		}
		done := make(chan left)
		go func() {
			code, stdout, stderr := command(environ, append([]string{"send"}, test.args...)...)
			done <- left{code, stdout, stderr}
		}()
		got := hear(t, c, len(test.want))
		if l := <-done; l != (left{}) {
			t.Errorf("send %q: %+v", test.args, l)
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(heard{})); diff != "" {
			t.Errorf("send %q: -want +got:\n%s", test.args, diff)
		}
	}
	before := monotonic(t)
	if code, _, stderr := command(environ, "send", "--reloading", "--no-barrier"); code != 0 {
		t.Errorf("send --reloading: code %d, %s", code, stderr)
	}
	text := hear(t, c, 1)[0].text
	usec, err := strconv.ParseInt(strings.TrimPrefix(text, "RELOADING=1\nMONOTONIC_USEC="), 10, 64)
	if err != nil || usec < before || usec > monotonic(t) {
		t.Errorf("%q, %v", text, err)
	}
	if code, _, stderr := command(environ, "send", "--status=two\nlines"); code != exitFailed || !strings.Contains(stderr, "line end") {
		t.Errorf("two lines: code %d, %q", code, stderr)
	}
}

// monotonic is CLOCK_MONOTONIC in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

func TestLogger(t *testing.T) {
	for format, prefix := range map[string]string{"auto": "{", "json": "{", "text": "time="} { // a buffer is no terminal
		var b bytes.Buffer
		log := logs.Logger(&b, slog.LevelWarn, format)
		log.Info("not this")
		log.Warn("this", "a", 1)
		if out := b.String(); !strings.HasPrefix(out, prefix) || strings.Count(out, "\n") != 1 || !strings.Contains(out, "this") {
			t.Errorf("%s: %q", format, out)
		}
	}
}
