package probes

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// TestStatusJSON fixes the keys, their order and what they hold.
func TestStatusJSON(t *testing.T) {
	look := with(func(n *lifecycle.Snapshot) {
		n.Status, n.BusError, n.VarlinkError = "a<b \xff\n", "org.Error", "io.Error"
		n.Errno, n.Respawns, n.RespawnAt = 2, 3, epoch.Add(time.Second)
		n.Watchdog, n.PingAt = 2*time.Second, epoch
		n.Deniable, n.Forbidden = true, true
		n.LastExit = &lifecycle.LastExit{Exit: lifecycle.Exit{Known: true, Signal: 15}, Who: daemon, At: epoch, Reason: "stopping", Clean: true}
		n.Facts = lifecycle.Facts{
			ErrnoName: "ENOENT", InnerPID: 1, StartTime: epoch, Container: "redis", Adopted: true,
			Denied: "uid 5", UnknownKeys: map[string]uint64{"X_FOO": 2}, Warnings: []string{"disk"},
			Datagrams: 7, Pings: 4, Dropped: map[string]uint64{"oversize": 1},
		}
	})
	got := StatusOf(newFake("redis", look), epoch.Add(time.Second))
	got.Checks = got.Checks[6:7]
	const want = `{
 "name": "redis",
 "expect": "auto",
 "phase": "ready",
 "since": "2026-11-22T07:00:00.0000005Z",
 "paused": false,
 "started": true,
 "ready": false,
 "live": true,
 "main": {
  "pid": 17,
  "innerPid": 1,
  "startTime": "2026-11-22T07:00:00.0000005Z",
  "command": "redis \\xfe",
  "container": "redis"
 },
 "status": "a\u003cb \\xff\n",
 "errno": {
  "number": 2,
  "name": "ENOENT"
 },
 "busError": "org.Error",
 "varlinkError": "io.Error",
 "checks": [
  {
   "name": "errno",
   "ok": false,
   "reason": "the daemon reported errno 2 (ENOENT)",
   "probes": [
    "ready"
   ]
  }
 ],
 "watchdog": {
  "intervalSeconds": 2,
  "sinceSeconds": 1
 },
 "startSeconds": 1.5,
 "respawns": 3,
 "respawnAt": "2026-11-22T07:00:01.0000005Z",
 "lastExit": {
  "code": null,
  "signal": "TERM",
  "reason": "stopping",
  "at": "2026-11-22T07:00:00.0000005Z"
 },
 "adopted": true,
 "signalPermitted": false,
 "unknownKeys": {
  "X_FOO": 2
 },
 "warnings": [
  "disk",
  "uid 5"
 ],
 "counters": {
  "datagrams": 7,
  "dropped": {
   "oversize": 1
  },
  "pings": 4
 }
}`
	text, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// TestStatusUnknown: what is not known is null, and nothing that is a list or a
// map is.
func TestStatusUnknown(t *testing.T) {
	_, body, _ := ask(handlerOf(newFake("redis", lifecycle.Snapshot{})), "GET", "/statusz/redis")
	var keys map[string]any
	if err := json.Unmarshal([]byte(body), &keys); err != nil {
		t.Fatal(err)
	}
	null := map[string]bool{"since": true, "main": true, "startSeconds": true, "respawnAt": true, "lastExit": true, "signalPermitted": true}
	for k, v := range keys {
		if (v == nil) != null[k] {
			t.Errorf("%s is %v", k, v)
		}
	}
	if n := reflect.TypeFor[Status]().NumField(); len(keys) != n {
		t.Errorf("%d keys, want %d", len(keys), n)
	}
	if checks := keys["checks"].([]any); len(checks) != len(lifecycle.CheckNames()) {
		t.Errorf("%d checks", len(checks))
	}
}

// TestStatusDecodes: the page is what podnotify status reads.
func TestStatusDecodes(t *testing.T) {
	f := newFake("redis", ready())
	_, body, _ := ask(handlerOf(f, newFake("web", lifecycle.Snapshot{})), "GET", "/statusz")
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	d.DisallowUnknownFields()
	var page Statuses
	if err := d.Decode(&page); err != nil {
		t.Fatal(err)
	}
	if page.Schema != Schema || len(page.Services) != 2 || !reflect.DeepEqual(page.Services[0], StatusOf(f, time.Now())) {
		t.Errorf("%+v", page)
	}
}

func TestExit(t *testing.T) {
	code := func(n int) *int { return &n }
	for _, tt := range []struct {
		exit lifecycle.Exit
		want Exit
	}{
		{lifecycle.Exit{}, Exit{}},
		{lifecycle.Exit{Known: true}, Exit{Code: code(0)}},
		{lifecycle.Exit{Known: true, Code: 78}, Exit{Code: code(78)}},
		{lifecycle.Exit{Known: true, Signal: 9}, Exit{Signal: "KILL"}},
		{lifecycle.Exit{Known: true, Signal: 31}, Exit{Signal: "SYS"}},
		{lifecycle.Exit{Known: true, Signal: 34}, Exit{Signal: "34"}},
	} {
		if got := exitOf(&lifecycle.LastExit{Exit: tt.exit}); !reflect.DeepEqual(*got, tt.want) {
			t.Errorf("%+v: %+v, want %+v", tt.exit, got, tt.want)
		}
	}
}
