package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fewNumbers reports whether a PID namespace can be left few numbers, so that they come
// again all the time. Before Linux 6.14 that would be the whole machine's limit.
func fewNumbers() bool {
	var host unix.Utsname
	var major, minor int
	_ = unix.Uname(&host)
	n, _ := fmt.Sscanf(unix.ByteSliceToString(host.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major > 6 || major == 6 && minor >= 14)
}

// patience is how long one of the many steps may take: others may have the machine.
const patience = 5 * time.Minute

// TestReusedNumbers: numbers are given away again as fast as they can be, between a
// datagram and its being read, and between that and a signal. Never does a signal
// reach who has the number now, and always the right process while it lives.
func TestReusedNumbers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	rounds := 5000 // of each kind
	if testing.Short() {
		rounds = 300
	}
	few := fewNumbers()
	if !few && !exists("/proc/sys/kernel/ns_last_pid") {
		lacking(t, "missing a way to have process numbers used again: Linux 6.14, or CONFIG_CHECKPOINT_RESTORE")
	}
	program := compile(t, "reuse")
	for _, c := range []struct {
		name   string
		args   []string
		choose bool
	}{
		{"in podnotify's namespace", nil, !few},
		{"in a namespace below", []string{"310"}, !few},
		{"as older kernels have it", nil, true}, // what the others do before Linux 6.14
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			rounds, env := rounds, []string{}
			if c.choose {
				env = append(env, "CHOOSE=1")
				if few {
					rounds = 300
				}
			} else {
				p.start(t, order{}, "sh", "-c", "echo 360 >/proc/sys/kernel/pid_max").exit()
			}
			n := p.serve(t, order{}, "sidecar", "--service", "d", "--expect", "notify", "--select-process", "^daemon")
			ours, theirs := channel(t)
			p.start(t, order{stdin: theirs, env: append(env, "NOTIFY_SOCKET="+n.socket("d"))}, append([]string{program}, c.args...)...)
			said := bufio.NewReader(ours)
			do := func(command string) string {
				t.Helper()
				_ = ours.SetDeadline(time.Now().Add(patience))
				if _, err := ours.WriteString(command); err != nil {
					t.Fatal(err)
				}
				line, err := said.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				return strings.TrimSpace(line)
			}
			kill := killer(n)
			reached, taken := 0, 0
			for i := range rounds {
				given := "k"
				switch i % 3 {
				case 0: // it lives
					do("t")
					if err := kill(); err != nil {
						t.Fatalf("round %d: a living main process is not signalled: %v", i, err)
					}
					if got := do("w"); got != "w 10" {
						t.Fatalf("round %d: the target got %s", i, got)
					}
					reached++
				case 1: // it was named, and is dead
					do("t")
					given = do("k")
				default: // it is dead already when it is named
					given = do("r")
				}
				if i%3 > 0 {
					_ = kill() // the helper, who ignores it, if anybody
				}
				switch {
				case given == "n": // podnotify has a new thread
					taken++
				case given != "k":
					t.Fatalf("round %d: %s", i, given)
				case i%3 > 0:
					if got := do("e"); got != "e 9" {
						t.Fatalf("round %d: a stranger got signal %s", i, got)
					}
				}
			}
			t.Logf("%d rounds, %d signals reached the right process, none another; %d numbers went to others", rounds, reached, taken)
			if taken > rounds/20 || taken > 0 && c.args != nil { // below, podnotify's threads have no numbers
				t.Errorf("%d of %d numbers were not given to a stranger", taken, rounds)
			}
		})
	}
}

// killer is podnotify kill --signal USR1, without the weight of a process.
func killer(n *podnotify) func() error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(n.dir, "control"))
	}}, Timeout: patience}
	n.t.Cleanup(client.CloseIdleConnections)
	form := url.Values{"service": {"d"}, "signal": {"USR1"}}.Encode()
	return func() error {
		r, err := client.Post("http://podnotify/control/kill", "application/x-www-form-urlencoded", strings.NewReader(form))
		if err != nil {
			n.t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", b)
		}
		return nil
	}
}
