package main

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/ctrd"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar"
)

// registered is a registry of its own, with a containerd at address.
func registered(t *testing.T, address string) *registry {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	dir, err := rundir.Claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dir.Close)
	node, err := sidecar.NewNode(proc.Proc, filepath.Join(dir.Path, "notify"), 0o666, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { node.Close() })
	state, err := journal.Open(dir.State(), proc.Proc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(state.Close)
	r := newRegistry(t.Context(), node, dir, state, &ctrd.Client{Address: address, Log: quiet}, quiet)
	t.Cleanup(func() {
		for _, n := range list[*container](r) {
			r.remove(n, true)
		}
	})
	return r
}

// plain is a container of containerd's alone, pod one of kubelet's.
func plain(space, id string) ctrd.Container {
	return ctrd.Container{Key: ctrd.Key{Namespace: space, ID: id}, Options: map[string]string{"expect": "notify"}}
}

func pod(id string, made int64) ctrd.Container {
	c := plain("k8s.io", id)
	c.Pod, c.Owned, c.Made = ctrd.Pod{Namespace: "n", Name: "p", Container: "c"}, true, time.Unix(made, 0)
	return c
}

// TestReplaced: a service is that of the newest container of its name, in whatever order
// they are told.
func TestReplaced(t *testing.T) {
	r := registered(t, "/nowhere")
	first, second := pod("first", 1), pod("second", 2)
	changed := pod("changed", 1)
	changed.Options = map[string]string{"expect": "none"}
	for _, told := range [][]ctrd.Container{{first, second}, {first}, {changed}, {second, first}} {
		for _, c := range told {
			r.Container(c)
		}
		n := r.named("n/p/c")
		if n == nil || n.what.ID != "second" || r.named("second") != n || r.named("first") != nil || r.of(first.Key) != nil {
			t.Fatalf("after %v the service is of %+v", told, n)
		}
	}
	r.Removed(first.Key) // is collected
	if r.named("n/p/c") == nil {
		t.Error("the service went with the container that it had before")
	}
	r.Removed(second.Key)
	if len(r.Services()) != 0 || len(r.ids) != 0 || len(r.pods) != 0 || len(r.keys) != 0 {
		t.Errorf("left are %v", r.Services())
	}
}

// TestOneID: an id that two containers have names neither of them.
func TestOneID(t *testing.T) {
	r := registered(t, "/nowhere")
	names := func() string {
		var out []string
		for _, s := range r.Services() {
			out = append(out, s.Name())
		}
		return strings.Join(out, " ")
	}
	r.Container(plain("b", "x"))
	r.Container(plain("b", "y"))
	x := r.named("x")
	if x == nil || r.named("b/x") != x || names() != "x y" {
		t.Fatalf("alone it is %v, of %s", x, names())
	}
	r.Container(plain("a", "x"))
	if r.named("x") != nil || r.named("b/x") != x || r.named("a/x") == nil || r.named("a/x") == x || names() != "a/x b/x y" {
		t.Fatalf("x is %v, of %s", r.named("x"), names())
	}
	if r.Service("x") != nil {
		t.Error("a source that is none")
	}
	w := get(t, probes.Handler(probes.Config{Directory: r}), "/readyz/x")
	if w.Code != 404 || !strings.Contains(w.Body.String(), `there are a/x, b/x, y`) {
		t.Errorf("GET /readyz/x is %d %s", w.Code, w.Body)
	}
	r.Removed(ctrd.Key{Namespace: "a", ID: "x"})
	if r.named("x") != x || names() != "x y" {
		t.Errorf("alone again it is %v, of %s", r.named("x"), names())
	}
}

// TestOneCgroup: what lives in another container's cgroup is not told from it.
func TestOneCgroup(t *testing.T) {
	r := registered(t, "/nowhere")
	sleep := func() *exec.Cmd {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		return c
	}
	one, two := sleep(), sleep()
	r.Container(plain("s", "one"))
	r.Container(plain("s", "two"))
	first, second := r.named("one"), r.named("two")
	if err := r.bind(first, idOf(t, one)); err != nil {
		t.Fatal(err)
	}
	if err := r.bind(first, idOf(t, one)); err != nil {
		t.Errorf("told again: %v", err)
	}
	if err := r.Started(second.what.Key, idOf(t, two)); err != nil {
		t.Errorf("it is told again, and will be refused again: %v", err)
	}
	warnings := strings.Join(second.Look().Facts.Warnings, "; ")
	if !strings.Contains(warnings, "container one lives in the same cgroup") {
		t.Errorf("warnings are %q", warnings)
	}
	one.Process.Kill()
	one.Wait()
	if err := r.bind(second, idOf(t, two)); err != nil {
		t.Errorf("the other has ended: %v", err)
	}
}

// TestRemoveCallsOff: a service ends at once, also while containerd does not answer who
// is to start its task again.
func TestRemoveCallsOff(t *testing.T) {
	address := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(asked)
				return
			}
			asked <- c
		}
	}()
	r := registered(t, address)
	c := plain("s", "x")
	c.Options["respawn.mode"] = "containerd"
	r.Container(c)
	n := r.named("x")
	if err := n.Respawn(); err != nil {
		t.Fatal(err)
	}
	defer (<-asked).Close() // to look whether somebody is there
	defer (<-asked).Close() // and this is the client's
	began := time.Now()
	done := make(chan struct{})
	go func() { r.Removed(c.Key); close(done) }()
	select {
	case <-done:
		t.Logf("after %v", time.Since(began))
	case <-time.After(8 * time.Second): // less than containerd has to answer
		t.Error("it waits for containerd")
		<-done
	}
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

// TestDescriptorsRunOut: who asks is told, while it lasts.
func TestDescriptorsRunOut(t *testing.T) {
	r := registered(t, "/none")
	if r.degraded()["descriptors"] {
		t.Error("at first")
	}
	if !r.scarce.Exhausted(unix.EMFILE) || !r.degraded()["descriptors"] {
		t.Error("podnotify_degraded does not say so")
	}
}

// TestNoDescriptorForFirst: a first process that cannot be looked at for want of descriptors
// is asked for again.
func TestNoDescriptorForFirst(t *testing.T) {
	r := registered(t, "/nowhere")
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	x := plain("s", "x")
	r.Container(x)
	id := idOf(t, c)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := r.Started(x.Key, id)
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, unix.EMFILE) || !r.degraded()["descriptors"] {
		t.Errorf("without descriptors: %v, degraded %v", err, r.degraded())
	}
	err = r.Started(x.Key, id)
	if n := r.named("x"); errors.Is(err, unix.EMFILE) || n.entry != id {
		t.Errorf("with descriptors: %v, bound is %v, want %v", err, n.entry, id)
	}
}

func idOf(t *testing.T, c *exec.Cmd) proc.ID {
	t.Helper()
	st, err := proc.Proc.Stat(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return st.ID()
}
