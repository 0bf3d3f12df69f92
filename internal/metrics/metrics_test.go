package metrics

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

type fake struct {
	name   string
	policy lifecycle.Policy
	look   lifecycle.Snapshot
}

func (f *fake) Name() string              { return f.name }
func (f *fake) Policy() *lifecycle.Policy { return &f.policy }
func (f *fake) Look() *lifecycle.Snapshot { return &f.look }

func scrape(t *testing.T, c Config) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(New(c)).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func config(services ...Source) Config {
	return Config{
		Services: func() []Source { return services },
		Degraded: func() map[string]bool { return map[string]bool{"state": true, "run-dir": false} },
		Version:  "1.2.3",
	}
}

var epoch = time.Date(2026, 11, 22, 7, 0, 0, 0, time.UTC)

func full() *fake {
	return &fake{name: "redis", policy: lifecycle.DefaultPolicy(), look: lifecycle.Snapshot{
		Phase: lifecycle.Ready, Main: lifecycle.ProcID{PID: 17, Start: 1}, Started: true, Triggered: true,
		StartedAt: epoch, ReadyAt: epoch.Add(1500 * time.Millisecond), Errno: 2, Deniable: true,
		Respawned: [...]int{lifecycle.WhyEnded: 3, lifecycle.WhyWatchdog: 2, lifecycle.WhyAsked: 1, lifecycle.WhyUnknown: 0},
		Facts: lifecycle.Facts{
			Datagrams: 7, Pings: 4,
			UnknownKeys: map[string]uint64{"X_EVIL\"\n": 2, "X_FOO": 3},
			Dropped:     map[string]uint64{"oversize": 1, "bad \xff": 2},
			Transitions: map[[2]lifecycle.Phase]uint64{{lifecycle.Starting, lifecycle.Ready}: 2},
		},
	}}
}

// TestExposition fixes names, labels and values.
func TestExposition(t *testing.T) {
	text := scrape(t, config(full()))
	var got []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "podnotify_build_info") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	const want = `podnotify_datagrams_total{service="redis"} 7
podnotify_degraded{what="run-dir"} 0
podnotify_degraded{what="state"} 1
podnotify_dropped_total{reason="bad ` + "\uFFFD" + `",service="redis"} 2
podnotify_dropped_total{reason="oversize",service="redis"} 1
podnotify_errno{service="redis"} 2
podnotify_live{service="redis"} 0
podnotify_phase{phase="absent",service="redis"} 0
podnotify_phase{phase="gone",service="redis"} 0
podnotify_phase{phase="ready",service="redis"} 1
podnotify_phase{phase="reloading",service="redis"} 0
podnotify_phase{phase="starting",service="redis"} 0
podnotify_phase{phase="stopping",service="redis"} 0
podnotify_ready{service="redis"} 0
podnotify_respawns_total{reason="asked",service="redis"} 1
podnotify_respawns_total{reason="ended",service="redis"} 3
podnotify_respawns_total{reason="start-timeout",service="redis"} 0
podnotify_respawns_total{reason="stop-timeout",service="redis"} 0
podnotify_respawns_total{reason="unknown",service="redis"} 0
podnotify_respawns_total{reason="watchdog",service="redis"} 2
podnotify_signal_permitted{service="redis"} 1
podnotify_started{service="redis"} 1
podnotify_time_to_ready_seconds{service="redis"} 1.5
podnotify_transitions_total{from="starting",service="redis",to="ready"} 2
podnotify_unknown_keys_total{service="redis"} 5
podnotify_watchdog_pings_total{service="redis"} 4`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	build := regexp.MustCompile(`(?m)^podnotify_build_info\{goversion="` + regexp.QuoteMeta(runtime.Version()) + `",revision="[^"]*",version="1\.2\.3"\} 1$`)
	if !build.MatchString(text) {
		t.Errorf("no build info in\n%s", text)
	}
	if strings.Contains(text, "EVIL") {
		t.Error("a daemon's key became a label")
	}
}

// TestUnknownIsAbsent: no series rather than a made-up value.
func TestUnknownIsAbsent(t *testing.T) {
	text := scrape(t, config(&fake{name: "redis", policy: lifecycle.DefaultPolicy()}))
	for _, name := range []string{"podnotify_signal_permitted", "podnotify_time_to_ready_seconds"} {
		if strings.Contains(text, name) {
			t.Errorf("%s is shown", name)
		}
	}
	for _, line := range []string{`podnotify_ready{service="redis"} 0`, `podnotify_started{service="redis"} 0`, `podnotify_live{service="redis"} 1`, `podnotify_phase{phase="absent",service="redis"} 1`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

func TestLint(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, config(full())))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestChecked: what is collected is what was described, for many services and
// names that are not text.
func TestChecked(t *testing.T) {
	other := full()
	other.name = "we\xffb"
	families, err := New(config(full(), other)).Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(all) {
		t.Errorf("%d families, want %d", len(families), len(all))
	}
}

// TestRepeatedName: one bad series does not take the others with it.
func TestRepeatedName(t *testing.T) {
	if text := scrape(t, config(full(), full())); !strings.Contains(text, `podnotify_ready{service="redis"} 0`) {
		t.Errorf("got\n%s", text)
	}
}

func TestOwnRegistry(t *testing.T) {
	New(config(full()))
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "podnotify_") {
			t.Errorf("%s is in the default registry", f.GetName())
		}
	}
	if text := scrape(t, Config{Services: func() []Source { return nil }}); strings.Contains(text, "go_goroutines") || !strings.Contains(text, "podnotify_build_info") {
		t.Errorf("got\n%s", text)
	}
}

// TestOverHTTP: a client that offers gzip gets text.
func TestOverHTTP(t *testing.T) {
	server := httptest.NewServer(Handler(New(config(full()))))
	defer server.Close()
	r, err := http.NewRequest("GET", server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept-Encoding", "gzip")
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	if answer.Header.Get("Content-Encoding") != "" || !strings.Contains(string(body), "podnotify_ready") {
		t.Errorf("%v\n%s", answer.Header, body)
	}
}
