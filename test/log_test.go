package test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogReasons: kubectl logs shows no answer's body, so the log says as well why a
// service is not ready, once.
func TestLogReasons(t *testing.T) {
	t.Parallel()
	dir, at := tempDir(t), freePort(t)
	n := scripted(t, []string{"--expect", "notify", "--gate-tcp", at, "--respawn-mode", "exec", "--respawn-delay", "1h", "--respawn-max-delay", "1h"},
		`send READY=1\nSTATUS=up;await `+dir+`/error;send ERRNO=28\nSTATUS=disk is full;send ERRNO=28;wait;exit 3`)
	gate := at + ": connection refused"
	n.untilBody("/readyz", 503, "gate: gate.tcp has not accepted a connection yet: "+gate)
	n.says("gate.tcp has not accepted a connection yet: " + gate)
	main := hold(t, n.mainPID("d"))
	signal(t, main, unix.SIGSTOP)
	n.says("daemon is paused")
	signal(t, main, unix.SIGCONT)
	n.says("daemon runs again")
	touch(t, dir+"/error")
	n.says("the daemon reported errno 28 (ENOSPC)")
	signal(t, main, unix.SIGKILL)
	n.says("respawn_in=1h0m0s")
	n.works("stop")
	n.exit()
	log := n.stderr.String()
	for _, want := range []string{"the daemon reported errno 28", "daemon is paused", "gate.tcp has not accepted"} {
		if strings.Count(log, want) != 1 {
			t.Errorf("the log says %d times %q, want once", strings.Count(log, want), want)
		}
	}
	gone := lineOf(log, "daemon is gone")
	for _, want := range []string{`status="disk is full"`, `errno="28 (ENOSPC)"`, `respawn="1 of 10 within 5m0s"`} {
		if !strings.Contains(gone, want) {
			t.Errorf("the last words are %q, want %s in them", gone, want)
		}
	}
}
