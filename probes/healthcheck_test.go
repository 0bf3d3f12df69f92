package probes

import (
	"encoding/json"
	"testing"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// full is the JSON of /ready?full=1 or /live?full=1.
func full(t *testing.T, services []Source, path string) (code int, checks map[string]string) {
	t.Helper()
	code, body, _ := ask(handlerOf(services...), "GET", path+"?full=1")
	if err := json.Unmarshal([]byte(body), &checks); err != nil {
		t.Fatalf("%s: %v in %q", path, err, body)
	}
	return code, checks
}

// TestHealthcheckNames: the library loses the text of one of two checks with
// the same name, so there must be as many as were meant.
func TestHealthcheckNames(t *testing.T) {
	services := []Source{newFake("redis", ready()), newFake("web", ready())}
	wantReady, wantLive := 0, 0
	for _, n := range lifecycle.CheckNames() {
		if lifecycle.Lists(lifecycle.Readyz, n) {
			wantReady += len(services)
		}
		if lifecycle.Lists(lifecycle.Livez, n) {
			wantLive += len(services)
		}
	}
	code, live := full(t, services, "/live")
	if code != 200 || len(live) != wantLive || wantLive == 0 {
		t.Errorf("/live = %d with %d checks, want %d: %v", code, len(live), wantLive, live)
	}
	// The library's /ready lists the liveness checks as well.
	code, ready := full(t, services, "/ready")
	if code != 200 || len(ready) != wantReady+wantLive {
		t.Errorf("/ready = %d with %d checks, want %d: %v", code, len(ready), wantReady+wantLive, ready)
	}
	for name, text := range ready {
		if text != "OK" {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestHealthcheckReasons(t *testing.T) {
	f := newFake("redis", with(func(n *lifecycle.Snapshot) { n.Triggered, n.Facts.Socket = true, "bad \xff" }))
	code, checks := full(t, []Source{f}, "/ready")
	if code != 503 || checks["redis/watchdog"] != "the daemon sent WATCHDOG=trigger" || checks["redis/watchdog/live"] != checks["redis/watchdog"] ||
		checks["redis/socket"] != `bad \xff` || checks["redis/start"] != "OK" || checks["redis/start/live"] != "OK" {
		t.Errorf("%d %v", code, checks)
	}
	f = newFake("redis", with(func(n *lifecycle.Snapshot) { n.Paused = true }))
	if code, checks := full(t, []Source{f}, "/live"); code != 200 {
		t.Errorf("/live of a paused service = %d %v", code, checks)
	}
}
