// Package pod tests podnotify in pods that a real container runtime makes,
// confined as Pod Security "restricted" asks, beside unchanged daemons.
package pod

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/test/e2e/containerd"
	"github.com/podnotify/podnotify/test/e2e/cri"
	"github.com/podnotify/podnotify/test/e2e/image"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

const (
	// bound is how long anything may take before a test gives up.
	bound = time.Minute
	// uid is that of podnotify's image.
	uid = 65532

	podnotifyImage = "podnotify.test/podnotify:1"
	redisImage     = "podnotify.test/redis:1"
)

func TestMain(m *testing.M) {
	machine.Main()
	os.Exit(m.Run())
}

// node is a machine with a container runtime and the images of the tests.
type node struct {
	*machine.Machine
	*cri.Runtime

	client *http.Client
}

func newNode(t *testing.T) *node {
	t.Helper()
	machine.Need(t, "redis-server", "redis-server")
	m := machine.New(t)
	c := containerd.Start(t, m)
	n := &node{m, cri.Connect(t, m, c.Address), m.HTTP()}

	podnotify := image.Image{Name: podnotifyImage, User: "65532:65532", Entrypoint: []string{"/podnotify"}, Cmd: []string{"sidecar"},
		Env: []string{"PODNOTIFY_RUN_DIR=/run/podnotify"}}
	program := filepath.Join(m.Dir, "podnotify")
	if err := image.Build(program, "../../..", "./cmd/podnotify"); err != nil {
		t.Fatal(err)
	}
	podnotify.Copy(program, "/podnotify", 0o755)
	redis := image.Image{Name: redisImage, User: "65532:65532", Entrypoint: []string{"/usr/bin/redis-server"}}
	redis.Program("redis-server")
	for _, i := range []*image.Image{&podnotify, &redis} {
		archive := filepath.Join(m.Dir, "image.tar")
		if err := i.Write(archive); err != nil {
			t.Fatal(err)
		}
		c.Import(t, archive, "k8s.io")
	}
	return n
}

// get asks the podnotify of a pod; code 0 is no answer.
func (n *node) get(p *cri.Pod, path string) (code int, body string) {
	r, err := n.client.Get("http://" + p.IP + ":19119" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, strings.TrimSpace(string(b))
}

func (n *node) until(t *testing.T, p *cri.Pod, path string, want int) {
	t.Helper()
	code, body := 0, ""
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if code, body = n.get(p, path); code == want {
			return
		}
	}
	t.Fatalf("GET %s is still %d %s after %v, want %d", path, code, body, bound, want)
}

// status is what these tests read of /statusz/redis.
type status struct {
	Phase   string
	Paused  bool
	Adopted bool
	Main    struct{ PID int }

	Counters struct{ Datagrams int }
}

func (n *node) status(t *testing.T, p *cri.Pod) (s status) {
	t.Helper()
	code, body := n.get(p, "/statusz/redis")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("GET /statusz/redis is %d %s: %v", code, body, err)
	}
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
	}
}

// TestSidecar: the pod that the examples describe, with the daemon's image and
// command as Debian has them.
func TestSidecar(t *testing.T) {
	n := newNode(t)
	for _, c := range []struct{ expect, supervised, variable string }{
		{"notify", "systemd", "NOTIFY_SOCKET=/run/podnotify/redis/notify"},
		{"stop", "upstart", "UPSTART_JOB=redis"},
	} {
		t.Run(c.expect, func(t *testing.T) {
			p := n.Pod(t, "redis-"+c.expect, true, nil)
			sidecar := cri.Container{
				Name: "podnotify", Image: podnotifyImage, UID: uid,
				Args:   []string{"sidecar", "--service", "redis", "--expect", c.expect},
				Mounts: map[string]string{"/run/podnotify": "podnotify"},
			}
			first := p.Start(sidecar)
			n.until(t, p, "/healthz", 200)
			n.confined(t, p.PID(first))
			for path, want := range map[string]int{"/startupz/redis": 503, "/readyz/redis": 503, "/livez/redis": 200} {
				if code, body := n.get(p, path); code != want {
					t.Errorf("GET %s is %d %s before the daemon is there, want %d", path, code, body, want)
				}
			}

			redis := p.Start(cri.Container{
				Name: "redis", Image: redisImage, UID: uid,
				Args: []string{"--supervised", c.supervised, "--save", "", "--dir", "/data", "--bind", "*", "--protected-mode", "no"},
				Env:  []string{c.variable},
				RO:   map[string]string{"/run/podnotify": "podnotify"}, Mounts: map[string]string{"/data": "data"},
			})
			n.until(t, p, "/readyz/redis", 200)
			if s := n.status(t, p); s.Phase != "ready" || s.Main.PID <= 1 {
				t.Errorf("status is %+v", s)
			}
			n.ping(t, p)

			pid := strconv.Itoa(p.PID(redis))
			n.Output(t, "kill", "-STOP", pid)
			n.until(t, p, "/readyz/redis", 503)
			if _, body := n.get(p, "/readyz/redis"); !strings.Contains(body, "paused") {
				t.Errorf("a stopped redis is not ready because of %q", body)
			}
			n.Output(t, "kill", "-CONT", pid)
			n.until(t, p, "/readyz/redis", 200)

			// The sidecar's end is nothing to the daemon, and the next one knows
			// what the last one knew: redis says nothing again.
			const kills = 20
			for attempt := range kills {
				n.Output(t, "kill", "-KILL", strconv.Itoa(p.PID(first)))
				eventually(t, "the sidecar ended", func() bool { return !p.Running(first) })
				sidecar.Attempt++
				first = p.Start(sidecar)
				n.until(t, p, "/healthz", 200)
				if code, body := n.get(p, "/readyz/redis"); code != 200 { // its first answer
					t.Errorf("sidecar %d answers %d %s", attempt+1, code, body)
				}
				s := n.status(t, p)
				if s.Phase != "ready" || !s.Adopted || s.Counters.Datagrams != 0 {
					t.Errorf("sidecar %d says %+v", attempt+1, s)
				}
			}
			t.Logf("the sidecar was killed %d times", kills)
			n.confined(t, p.PID(first))
			_, metrics := n.get(p, "/metrics")
			for _, what := range []string{"state", "descriptors", "pidfd", "proc"} {
				if !strings.Contains(metrics, fmt.Sprintf("podnotify_degraded{what=%q} 0", what)) {
					t.Errorf("it lacks %s, so confined:\n%s", what, metrics)
				}
			}
			if got := strconv.Itoa(p.PID(redis)); got != pid || !p.Running(redis) {
				t.Errorf("redis was process %s and is %s, running %v", pid, got, p.Running(redis))
			}
			n.ping(t, p)

			// What kubelet does to a container that is to end.
			n.Output(t, "kill", "-TERM", pid)
			n.until(t, p, "/readyz/redis", 503)
			eventually(t, "redis ended", func() bool { return !p.Running(redis) })
		})
	}
}

// ping is a client of redis.
func (n *node) ping(t *testing.T, p *cri.Pod) {
	t.Helper()
	conn, err := n.Dial(t.Context(), "tcp", p.IP+":6379")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(bound))
	answer := make([]byte, 7)
	if _, err = fmt.Fprint(conn, "PING\r\n"); err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil || string(answer) != "+PONG\r\n" {
		t.Errorf("redis answers %q, %v", answer, err)
	}
}

// confined looks what the kernel says of a process: no capabilities, none to be
// had, a seccomp filter, a root directory that cannot be written to.
func (n *node) confined(t *testing.T, pid int) {
	t.Helper()
	mounts := n.Output(t, "cat", fmt.Sprintf("/proc/%d/mountinfo", pid))
	if !regexp.MustCompile(`(?m)^\S+ \S+ \S+ \S+ / ro[, ]`).MatchString(mounts) {
		t.Errorf("the root directory is writable:\n%s", mounts)
	}
	status := n.Output(t, "cat", fmt.Sprintf("/proc/%d/status", pid))
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", fmt.Sprintf("Uid:\t%[1]d\t%[1]d", uid)} {
		if !strings.Contains(status, want) {
			t.Errorf("the kernel does not say %q of podnotify:\n%s", want, status)
		}
	}
}
