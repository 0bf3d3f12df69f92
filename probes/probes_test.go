package probes

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

func TestMain(m *testing.M) {
	// net/http lets a connection it refused linger for half a second by itself.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

type fake struct {
	name   string
	policy lifecycle.Policy
	look   atomic.Pointer[lifecycle.Snapshot]
}

func (f *fake) Name() string              { return f.name }
func (f *fake) Policy() *lifecycle.Policy { return &f.policy }
func (f *fake) Look() *lifecycle.Snapshot { return f.look.Load() }

func (f *fake) Command(main lifecycle.ProcID) string {
	if main == daemon {
		return "redis \xfe"
	}
	return ""
}

func newFake(name string, s lifecycle.Snapshot) *fake {
	f := &fake{name: name, policy: lifecycle.DefaultPolicy()}
	f.look.Store(&s)
	return f
}

var (
	epoch  = time.Date(2026, 11, 22, 7, 0, 0, 500, time.UTC)
	daemon = lifecycle.ProcID{PID: 17, Start: 1700}
)

// ready is a service that says yes to everything.
func ready() lifecycle.Snapshot {
	return lifecycle.Snapshot{
		Phase: lifecycle.Ready, Since: epoch, Main: daemon, Started: true,
		StartedAt: epoch.Add(-1500 * time.Millisecond), ReadyAt: epoch,
	}
}

func with(change func(*lifecycle.Snapshot)) lifecycle.Snapshot {
	s := ready()
	change(&s)
	return s
}

// ask calls the handler core, without a network.
func ask(h http.Handler, method, target string) (code int, body string, header http.Header) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code, w.Body.String(), w.Header()
}

func handlerOf(services ...Source) http.Handler { return Handler(Config{Services: services}) }

// TestAnswers has a row for each way to fail of the specification's table.
func TestAnswers(t *testing.T) {
	const s, r, l = lifecycle.Startup, lifecycle.Readyz, lifecycle.Livez
	unclean := &lifecycle.LastExit{Who: daemon, Exit: lifecycle.Exit{Known: true, Signal: 9}, Reason: "killed"}
	clean := &lifecycle.LastExit{Who: daemon, Exit: lifecycle.Exit{Known: true}, Reason: "exited", Clean: true}
	gone := func(x *lifecycle.LastExit, containerAlive bool) lifecycle.Snapshot {
		return with(func(n *lifecycle.Snapshot) {
			n.Phase, n.Main, n.Started, n.LastExit = lifecycle.Gone, lifecycle.ProcID{}, false, x
			n.Facts.ContainerAlive = containerAlive
		})
	}
	starting := func(n *lifecycle.Snapshot) { n.Phase, n.Started = lifecycle.Starting, false }
	for _, tt := range []struct {
		name   string
		look   lifecycle.Snapshot
		policy func(*lifecycle.Policy)
		fails  lifecycle.Probe
		check  string // the one named by /readyz
		reason string // part of its reason
	}{
		{name: "ready", look: ready()},
		{name: "nothing known", look: lifecycle.Snapshot{}, fails: s | r, check: "process", reason: "no main process"},
		{name: "socket", look: with(func(n *lifecycle.Snapshot) { n.Facts.Socket = "cannot bind" }), fails: r, check: "socket", reason: "cannot bind"},
		{name: "main process gone, container too", look: gone(unclean, false), fails: s | r, check: "process", reason: "killed by signal 9"},
		{name: "main process gone, container lives", look: gone(unclean, true), fails: s | r | l, check: "process", reason: "killed by signal 9"},
		{name: "main process ended cleanly, container lives", look: gone(clean, true), fails: s | r, check: "process", reason: "exited with code 0"},
		{name: "candidates", look: with(func(n *lifecycle.Snapshot) {
			n.Phase, n.Main, n.Started = lifecycle.Absent, lifecycle.ProcID{}, false
			n.Facts.Candidates = []string{"a", "b"}
		}), fails: s | r, check: "process", reason: "any of a, b"},
		{name: "starting", look: with(starting), fails: s | r, check: "start", reason: "no READY=1"},
		{name: "start late, report", look: with(func(n *lifecycle.Snapshot) { starting(n); n.StartLate = true }), fails: s | r, check: "start", reason: "not ready after 1m30s"},
		{name: "start late, not-live", look: with(func(n *lifecycle.Snapshot) { starting(n); n.StartLate = true }),
			policy: func(p *lifecycle.Policy) { p.OnStartTimeout = lifecycle.NotLive }, fails: s | r | l, check: "start", reason: "not ready after"},
		{name: "gate", look: ready(), policy: func(p *lifecycle.Policy) { p.Gate = true }, fails: s | r, check: "gate", reason: "has not accepted"},
		{name: "gate open", look: with(func(n *lifecycle.Snapshot) { n.GateOpen = true }), policy: func(p *lifecycle.Policy) { p.Gate = true }},
		{name: "reloading, keep", look: with(func(n *lifecycle.Snapshot) { n.Phase = lifecycle.Reloading })},
		{name: "reloading, not-ready", look: with(func(n *lifecycle.Snapshot) { n.Phase = lifecycle.Reloading }),
			policy: func(p *lifecycle.Policy) { p.OnReload = lifecycle.NotReady }, fails: r, check: "reload", reason: "reloading"},
		{name: "paused", look: with(func(n *lifecycle.Snapshot) { n.Paused = true }), fails: r, check: "paused", reason: "kill -CONT 17"},
		{name: "paused, ignore", look: with(func(n *lifecycle.Snapshot) { n.Paused = true }), policy: func(p *lifecycle.Policy) { p.OnPaused = lifecycle.Ignore }},
		{name: "errno", look: with(func(n *lifecycle.Snapshot) { n.Errno, n.Facts.ErrnoName = 2, "ENOENT" }), fails: r, check: "errno", reason: "errno 2 (ENOENT)"},
		{name: "errno, not-live", look: with(func(n *lifecycle.Snapshot) { n.Errno = 2 }),
			policy: func(p *lifecycle.Policy) { p.OnErrno = lifecycle.NotLive }, fails: r | l, check: "errno", reason: "errno 2"},
		{name: "errno, ignore", look: with(func(n *lifecycle.Snapshot) { n.Errno = 2 }), policy: func(p *lifecycle.Policy) { p.OnErrno = lifecycle.Ignore }},
		{name: "starved", look: with(func(n *lifecycle.Snapshot) { n.Starved, n.Watchdog = true, time.Second }), fails: r | l, check: "watchdog", reason: "within 1s"},
		{name: "triggered", look: with(func(n *lifecycle.Snapshot) { n.Triggered = true }), fails: r | l, check: "watchdog", reason: "WATCHDOG=trigger"},
		{name: "stopping", look: with(func(n *lifecycle.Snapshot) { n.Phase, n.StopSaid = lifecycle.Stopping, true }), fails: r, check: "stopping", reason: "STOPPING=1"},
		{name: "stop late", look: with(func(n *lifecycle.Snapshot) { n.Phase, n.StopLate = lifecycle.Stopping, true }), fails: r | l, check: "stopping", reason: "still stopping"},
		{name: "respawn limit", look: with(func(n *lifecycle.Snapshot) { n.LimitHit, n.Respawns = true, 11 }), fails: r, check: "respawn", reason: "10 times"},
		{name: "unknown", look: with(func(n *lifecycle.Snapshot) { n.Unknown = true }), fails: r, check: "unknown", reason: "not known whether it is ready"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake("redis", tt.look)
			if tt.policy != nil {
				tt.policy(&f.policy)
			}
			h := handlerOf(f)
			for path, probe := range map[string]lifecycle.Probe{"/startupz": s, "/readyz": r, "/livez": l} {
				wantCode := http.StatusOK
				if tt.fails&probe != 0 {
					wantCode = http.StatusServiceUnavailable
				}
				for _, target := range []string{path, path + "/redis"} {
					code, body, _ := ask(h, "GET", target)
					if code != wantCode || (code == http.StatusOK) != (body == "ok") {
						t.Errorf("%s = %d %q, want %d", target, code, body, wantCode)
					}
					if strings.Count(body, "\n") > 1 || strings.Contains(strings.TrimSuffix(body, "\n"), "\n") {
						t.Errorf("%s has more than one line: %q", target, body)
					}
					if probe == r && code != http.StatusOK && (!strings.HasPrefix(body, tt.check+": ") || !strings.Contains(body, tt.reason)) {
						t.Errorf("%s = %q, want check %q and reason %q", target, body, tt.check, tt.reason)
					}
				}
				if code, _, _ := ask(h, "GET", path+"?verbose"); code != wantCode {
					t.Errorf("%s?verbose = %d, want %d", path, code, wantCode)
				}
			}
			for path, probe := range map[string]lifecycle.Probe{"/ready": r, "/live": l} {
				wantCode := http.StatusOK
				if tt.fails&probe != 0 {
					wantCode = http.StatusServiceUnavailable
				}
				if code, body, _ := ask(h, "GET", path+"?full=1"); code != wantCode {
					t.Errorf("%s = %d %s, want %d", path, code, body, wantCode)
				}
			}
			if st := StatusOf(f, epoch); st.Started != (tt.fails&s == 0) || st.Ready != (tt.fails&r == 0) || st.Live != (tt.fails&l == 0) {
				t.Errorf("status says started %v, ready %v, live %v", st.Started, st.Ready, st.Live)
			}
		})
	}
}

// TestMachine follows a real machine from nothing to gone.
func TestMachine(t *testing.T) {
	f := newFake("redis", lifecycle.Snapshot{})
	m := lifecycle.New(f.policy)
	h := handlerOf(f)
	want := func(when string, startup, ready, live int) {
		t.Helper()
		look := m.Snapshot()
		f.look.Store(&look)
		for path, code := range map[string]int{"/startupz": startup, "/readyz": ready, "/livez": live} {
			if got, body, _ := ask(h, "GET", path); got != code {
				t.Errorf("%s: %s = %d %q, want %d", when, path, got, body, code)
			}
		}
	}
	want("before anything is known", 503, 503, 200)
	m.Apply(lifecycle.Event{Kind: lifecycle.Found, Who: daemon}, epoch)
	want("found", 503, 503, 200)
	m.Apply(lifecycle.Event{Kind: lifecycle.Status, Who: daemon, Text: []byte("loading")}, epoch)
	want("loading", 503, 503, 200)
	if _, body, _ := ask(h, "GET", "/readyz"); body != "start: not ready yet: no READY=1 and no stop so far; STATUS=loading\n" {
		t.Errorf("body %q", body)
	}
	m.Apply(lifecycle.Event{Kind: lifecycle.ReadyWord, Who: daemon}, epoch)
	want("ready", 200, 200, 200)
	m.Apply(lifecycle.Event{Kind: lifecycle.StopWord, Who: daemon}, epoch)
	want("stopping", 200, 503, 200)
	m.Apply(lifecycle.Event{Kind: lifecycle.Ended, Who: daemon, Exit: lifecycle.Exit{Known: true}}, epoch)
	want("gone", 503, 503, 200)
}

func TestPages(t *testing.T) {
	redis := newFake("redis", ready())
	web := newFake("web", lifecycle.Snapshot{Status: "a <b>\n"})
	var ill error
	h := Handler(Config{
		Services: []Source{redis, web},
		Healthy:  func() error { return ill },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/metrics")
			io.WriteString(w, "podnotify_ready 1\n")
		}),
	})
	const redisOnly = "process: no main process; STATUS=a &lt;b&gt;\\n\n"
	for _, tt := range []struct {
		method, target string
		code           int
		body           string // exact, or with a trailing * its beginning
	}{
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/startupz/redis", 200, "ok"},
		{"GET", "/readyz/redis", 200, "ok"},
		{"GET", "/livez/redis", 200, "ok"},
		{"GET", "/livez", 200, "ok"},
		{"GET", "/readyz/web", 503, redisOnly},
		{"GET", "/readyz", 503, "web: " + redisOnly},
		{"GET", "/startupz", 503, "web: start: *"},
		{"GET", "/statusz", 200, `{"schema":1,"services":[{"name":"redis",*`},
		{"GET", "/statusz/web", 200, `{"schema":1,"name":"web",*`},
		{"GET", "/metrics", 200, "podnotify_ready 1\n"},
		{"GET", "/ready", 503, "{}\n"},
		{"GET", "/live", 200, "{}\n"},
		{"GET", "/readyz/nginx", 404, "no service \"nginx\"; there are redis, web\n"},
		{"GET", "/statusz/%3Cb%3E%0A", 404, "no service \"&lt;b&gt;\\\\n\"; *"},
		{"GET", "/", 404, "no such page; there are /healthz *"},
		{"GET", "/nothing", 404, "no such page; *"},
		{"GET", "//readyz", 404, "no such page; *"},
		{"GET", "/readyz/", 404, "no such page; *"},
		{"GET", "/healthz/redis", 404, "no such page; *"},
		{"GET", "/ready/redis", 404, "no such page; *"},
		{"POST", "/nothing", 404, "no such page; *"},
		{"POST", "/readyz", 405, "only GET and HEAD*"},
		{"PUT", "/readyz/redis", 405, "only GET and HEAD*"},
		{"DELETE", "/statusz", 405, "only GET and HEAD*"},
		{"OPTIONS", "/healthz", 405, "only GET and HEAD*"},
		{"PATCH", "/ready", 405, "only GET and HEAD*"},
		{"POST", "/metrics", 405, "only GET and HEAD*"},
	} {
		code, body, header := ask(h, tt.method, tt.target)
		begin, open := strings.CutSuffix(tt.body, "*")
		if code != tt.code || body != tt.body && !(open && strings.HasPrefix(body, begin)) {
			t.Errorf("%s %s = %d %q, want %d %q", tt.method, tt.target, code, body, tt.code, tt.body)
		}
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: headers %v", tt.method, tt.target, header)
		}
		wantType := "text/plain; charset=utf-8"
		switch strings.Split(tt.target, "/")[1] {
		case "statusz":
			if code == 200 {
				wantType = "application/json"
			}
		case "ready", "live":
			if code != 404 && code != 405 {
				wantType = "application/json; charset=utf-8"
			}
		case "metrics":
			if code == 200 {
				wantType = "text/metrics"
			}
		}
		if got := header.Get("Content-Type"); got != wantType {
			t.Errorf("%s %s: Content-Type %q, want %q", tt.method, tt.target, got, wantType)
		}
		if allow := header.Get("Allow"); (allow == "GET, HEAD") != (code == 405) {
			t.Errorf("%s %s = %d with Allow %q", tt.method, tt.target, code, allow)
		}
	}
	ill = errors.New("cannot bind a\nb")
	if code, body, _ := ask(h, "GET", "/healthz"); code != 503 || body != "cannot bind a\\nb\n" {
		t.Errorf("/healthz = %d %q", code, body)
	}
	if code, _, _ := ask(h, "GET", "/readyz/redis"); code != 200 {
		t.Error("podnotify's own trouble failed a probe")
	}
	if code, _, _ := ask(handlerOf(redis), "GET", "/metrics"); code != 404 {
		t.Errorf("/metrics without metrics = %d", code)
	}
}

func TestNames(t *testing.T) {
	h := handlerOf(newFake("shop/web-0/app", ready()))
	if code, body, _ := ask(h, "GET", "/readyz/shop/web-0/app"); code != 200 {
		t.Errorf("%d %q", code, body)
	}
	if code, body, _ := ask(h, "GET", "/readyz/shop"); code != 404 || body != "no service \"shop\"; there is shop/web-0/app\n" {
		t.Errorf("%d %q", code, body)
	}
}

// TestNamesShown: a message does not name all of many services.
func TestNamesShown(t *testing.T) {
	var many []Source
	for i := range namesShown + 5 {
		many = append(many, newFake(fmt.Sprintf("service-%d", i), ready()))
	}
	if code, body, _ := ask(handlerOf(many...), "GET", "/readyz/x"); code != 404 || strings.Count(body, "service-") != namesShown || !strings.HasSuffix(body, "and 5 more\n") {
		t.Errorf("%d %q", code, body)
	}
}

// TestNoServices: a podnotify that knows of nothing must not be taken for one
// whose services are all ready.
func TestNoServices(t *testing.T) {
	h := handlerOf()
	for target, want := range map[string]int{
		"/startupz": 503, "/readyz": 503, "/livez": 200, "/ready": 503, "/live": 200,
		"/readyz?verbose": 503, "/livez?verbose": 200, "/readyz?exclude=start": 503, "/healthz": 200,
	} {
		if code, body, _ := ask(h, "GET", target); code != want {
			t.Errorf("%s = %d %q, want %d", target, code, body, want)
		}
	}
	if _, body, _ := ask(h, "GET", "/statusz"); body != "{\"schema\":1,\"services\":[]}\n" {
		t.Errorf("/statusz = %q", body)
	}
	if _, body, _ := ask(h, "GET", "/readyz/x"); body != "no service \"x\"; there are none\n" {
		t.Errorf("/readyz/x = %q", body)
	}
}

func TestVerbose(t *testing.T) {
	redis := newFake("redis", with(func(n *lifecycle.Snapshot) { n.Paused, n.Errno, n.Facts.ErrnoName = true, 5, "EIO" }))
	web := newFake("web", ready())
	for _, tt := range []struct {
		services []Source
		target   string
		code     int
		body     string
	}{
		{[]Source{redis}, "/readyz?verbose", 503, `[+]socket ok
[+]process ok
[+]start ok
[+]gate ok
[+]reload ok
[-]paused failed: process 17 is stopped by a signal; kill -CONT 17 continues it
[-]errno failed: the daemon reported errno 5 (EIO)
[+]watchdog ok
[+]stopping ok
[+]respawn ok
[+]unknown ok
readyz check failed
`},
		{[]Source{redis}, "/readyz/redis?verbose=1&exclude=paused&exclude=errno&exclude=nonsense&exclude=%3Cx%3E", 200, `[+]socket ok
[+]process ok
[+]start ok
[+]gate ok
[+]reload ok
[+]paused excluded: ok
[+]errno excluded: ok
[+]watchdog ok
[+]stopping ok
[+]respawn ok
[+]unknown ok
warn: some health checks cannot be excluded: no matches for "nonsense","&lt;x&gt;"
readyz check passed
`},
		{[]Source{redis, web}, "/livez?verbose", 200, `[+]redis/process ok
[+]redis/start ok
[+]redis/errno ok
[+]redis/watchdog ok
[+]redis/stopping ok
[+]web/process ok
[+]web/start ok
[+]web/errno ok
[+]web/watchdog ok
[+]web/stopping ok
livez check passed
`},
		{[]Source{web}, "/startupz?verbose", 200, "[+]start ok\n[+]gate ok\nstartupz check passed\n"},
		{[]Source{redis}, "/readyz?exclude=paused", 503, "errno: the daemon reported errno 5 (EIO)\n"},
		{[]Source{redis}, "/readyz?exclude=paused&exclude=redis/errno", 200, "ok"},
		{[]Source{redis}, "/readyz?exclude=paused&exclude=web/errno", 503, "errno: the daemon reported errno 5 (EIO); warn: some health checks cannot be excluded: no matches for \"web/errno\"\n"},
		{[]Source{redis}, "/readyz?exclude=erno", 503, "paused: process 17 is stopped by a signal; kill -CONT 17 continues it; warn: some health checks cannot be excluded: no matches for \"erno\"\n"},
		{[]Source{redis}, "/readyz?exclude=errno&exclude=watchdog", 503, "paused: process 17 is stopped by a signal; kill -CONT 17 continues it\n"},
		{[]Source{redis, web}, "/readyz?exclude=errno", 503, "redis: paused: process 17 is stopped by a signal; kill -CONT 17 continues it\n"},
		{[]Source{redis}, "/readyz?other=1", 503, "paused: process 17 is stopped by a signal; kill -CONT 17 continues it\n"},
	} {
		code, body, _ := ask(handlerOf(tt.services...), "GET", tt.target)
		if code != tt.code || body != tt.body {
			t.Errorf("%s = %d\n%s\nwant %d\n%s", tt.target, code, body, tt.code, tt.body)
		}
	}
}

// TestHead compares HEAD with GET over the network: same code, same headers, no
// body.
func TestHead(t *testing.T) {
	server := httptest.NewServer(Handler(Config{
		Services: []Source{newFake("redis", ready()), newFake("web", lifecycle.Snapshot{})},
	}))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	for _, path := range []string{"/healthz", "/readyz", "/readyz/redis", "/readyz?verbose", "/livez", "/nothing", "/ready", "/live", "/ready?full=1"} {
		get, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		getBody, _ := io.ReadAll(get.Body)
		get.Body.Close()
		head, err := client.Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		headBody, _ := io.ReadAll(head.Body)
		head.Body.Close()
		if head.StatusCode != get.StatusCode || len(headBody) != 0 || len(getBody) == 0 {
			t.Errorf("%s: HEAD %d with %d bytes, GET %d with %d", path, head.StatusCode, len(headBody), get.StatusCode, len(getBody))
		}
		if !strings.HasPrefix(path, "/ready?") && path != "/ready" && path != "/live" && head.ContentLength != int64(len(getBody)) {
			t.Errorf("%s: HEAD says %d bytes, GET sends %d", path, head.ContentLength, len(getBody))
		}
		if get.Header.Get("Cache-Control") != "no-store" || head.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: cacheable", path)
		}
	}
}

// TestNeverTorn: an answer is made of one snapshot, however often it changes.
func TestNeverTorn(t *testing.T) {
	a := with(func(n *lifecycle.Snapshot) { n.Paused, n.Status = true, "is paused" })
	b := with(func(n *lifecycle.Snapshot) { n.Triggered, n.Status = true, "is triggered" })
	f := newFake("redis", a)
	h := handlerOf(f)
	var publisher sync.WaitGroup
	done := make(chan struct{})
	publisher.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				f.look.Store(&b)
				f.look.Store(&a)
			}
		}
	})
	seen := map[string]bool{}
	deadline := time.Now().Add(20 * time.Second)
	for i := 0; (i < 2000 || len(seen) < 2) && time.Now().Before(deadline); i++ {
		_, body, _ := ask(h, "GET", "/readyz")
		seen[body] = true
		paused, triggered := strings.Contains(body, "paused"), strings.Contains(body, "trigger")
		if paused == triggered {
			t.Fatalf("torn: %q", body)
		}
	}
	close(done)
	publisher.Wait()
	if len(seen) != 2 {
		t.Errorf("saw %d of 2 answers", len(seen))
	}
}

// discard is a ResponseWriter that costs nothing itself.
type discard struct {
	header http.Header
	code   int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(code int)        { d.code = code }

func TestYesAllocatesNothing(t *testing.T) {
	services := []Source{newFake("redis", ready()), newFake("web", ready())}
	h := handlerOf(services...)
	for _, path := range []string{"/readyz/redis", "/readyz", "/livez/web", "/startupz", "/healthz"} {
		r := httptest.NewRequest("GET", path, nil)
		w := &discard{header: http.Header{}}
		if n := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) }); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
		if w.code != 0 {
			t.Errorf("%s: %d", path, w.code)
		}
	}
}

func BenchmarkReady(b *testing.B) {
	h := handlerOf(newFake("redis", ready()))
	r := httptest.NewRequest("GET", "/readyz/redis", nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

func BenchmarkNotReady(b *testing.B) {
	h := handlerOf(newFake("redis", lifecycle.Snapshot{Status: "loading"}))
	r := httptest.NewRequest("GET", "/readyz/redis", nil)
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

func FuzzHandler(f *testing.F) {
	for _, s := range []string{"/readyz", "/readyz/redis", "/statusz/", "/x", "*", "", "//", "/readyz/\xff\n"} {
		f.Add(s, "verbose&exclude=start", "\xff<script>\n")
	}
	f.Fuzz(func(t *testing.T, path, query, status string) {
		h := handlerOf(newFake("redis", lifecycle.Snapshot{Status: status}), newFake("web", ready()))
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawQuery = path, query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 404, 503:
		default:
			t.Errorf("%q?%q = %d", path, query, w.Code)
		}
		plain := w.Header().Get("Content-Type") == "text/plain; charset=utf-8"
		if plain && strings.ContainsAny(w.Body.String(), "<>\x00\x1b\r") {
			t.Errorf("%q?%q = %q", path, query, w.Body)
		}
		if plain && !r.URL.Query().Has("verbose") && strings.Contains(strings.TrimSuffix(w.Body.String(), "\n"), "\n") {
			t.Errorf("%q?%q: more than a line: %q", path, query, w.Body)
		}
	})
}

// TestExcludeBound: a request cannot make an answer long work.
func TestExcludeBound(t *testing.T) {
	redis := newFake("redis", with(func(n *lifecycle.Snapshot) { n.Paused = true }))
	filler := strings.Repeat("exclude=x&", excludedMost-1)
	if code, body, _ := ask(handlerOf(redis), "GET", "/readyz?"+filler+"exclude=paused"); code != 200 {
		t.Errorf("%d %q: the last that is taken is excluded", code, body)
	}
	if code, body, _ := ask(handlerOf(redis), "GET", "/readyz?x=y&"+filler+"exclude=x&exclude=paused"); code != 503 {
		t.Errorf("%d %q: one more is not", code, body)
	}
}
