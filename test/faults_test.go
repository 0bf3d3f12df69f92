package test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLogReaderGone: whoever read the log going away ends nothing.
func TestLogReaderGone(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	cmd := exec.Command(bin.podnotify, "run", "--listen", "127.0.0.1:0", "--run-dir", dir, "--", "sh", "-c", "until [ -e "+dir+"/go ]; do sleep 0.02; done; exit 7")
	cmd.Stderr = w
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b := make([]byte, 1)
	if _, err := r.Read(b); err != nil { // it has begun to log
		t.Fatal(err)
	}
	r.Close()
	write(t, dir+"/go", "")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("podnotify ends as %v, want the daemon's own code, 7", cmd.ProcessState)
	}
}

// TestNohup: a hang-up that is ignored stays ignored, by podnotify and the daemon.
func TestNohup(t *testing.T) {
	t.Parallel()
	x, code := once(t, order{}, nil, "sh", "-c", `kill -HUP $$; exit 9`)
	if code != 128+int(unix.SIGHUP) {
		t.Errorf("without nohup: %d\n%s", code, &x.stderr)
	}
	out, err := exec.Command("sh", "-c", `trap '' HUP; exec "$@"`, "sh", bin.podnotify, "run", "--listen", "127.0.0.1:0", "--run-dir", tempDir(t), "--",
		"sh", "-c", `kill -HUP $PPID; kill -HUP $$; exit 9`).CombinedOutput()
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 9 {
		t.Errorf("with nohup: %v\n%s", err, out)
	}
}

// TestTermWithoutGrace: with timeouts.stop 0 there is no end of waiting.
func TestTermWithoutGrace(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := newPod(t).serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "notify", "--timeouts-stop", "0")
	d := n.daemon("d", "send READY=1;wait", nobody)
	n.until("/readyz", 200)
	n.signal(unix.SIGTERM)
	n.untilBody("/readyz", 503, "stopping")
	for range 20 { // it would have ended at the first look
		n.expect("/healthz", 200)
		time.Sleep(20 * time.Millisecond)
	}
	d.signal(unix.SIGTERM)
	if code := n.exit(); code != 0 {
		t.Errorf("podnotify ends with %d", code)
	}
}
