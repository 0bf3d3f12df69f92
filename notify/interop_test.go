package notify

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestLibsystemd lets libsystemd speak: testdata/sender.c.
func TestLibsystemd(t *testing.T) {
	noLeak(t)
	const cure = "apt-get install gcc libsystemd-dev"
	bin := filepath.Join(t.TempDir(), "sender")
	if out, err := exec.Command("cc", "-o", bin, "testdata/sender.c", "-lsystemd").CombinedOutput(); err != nil {
		t.Skipf("cannot build a program with libsystemd (%s): %v\n%s", cure, err, out)
	}
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), "@podnotify-libsystemd/" + filepath.Base(t.TempDir()) + fmt.Sprint(descriptors(t))} {
		l := mustListen(t, Config{Address: address})
		cmd := exec.Command(bin)
		cmd.Env = []string{"NOTIFY_SOCKET=" + l.Env()}
		fds := []int{}
		r := recorder{each: func(p *Packet) { fds = append(fds, len(p.FDs)) }}
		out := make(chan error, 1)
		go func() {
			b, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, b)
			}
			out <- err
		}()
		ended := false
		eventually(t, "the sender's end", func() bool {
			drainAll(t, l, &r)
			select {
			case err := <-out:
				if err != nil {
					t.Fatal(err)
				}
				ended = true
			default:
			}
			return ended
		})
		drainAll(t, l, &r)
		expect(t, &r,
			`flag:READY=1 STATUS:"up and running"`,
			`flag:FDSTORE=1 FDNAME:"pair"`,
			"flag:BARRIER=1 barrier-only",
			`WATCHDOG:"1"`)
		if fmt.Sprint(fds) != "[0 2 1 0]" {
			t.Errorf("descriptors: %v", fds)
		}
		for i, from := range r.froms {
			if from.PID != cmd.Process.Pid {
				t.Errorf("datagram %d is from %d, want %d", i, from.PID, cmd.Process.Pid)
			}
		}
	}
}
