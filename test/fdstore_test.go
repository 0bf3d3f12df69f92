package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStoredSocket: a server stores its listening socket, is respawned a hundred
// times under load, and nobody who connects notices.
func TestStoredSocket(t *testing.T) {
	t.Parallel()
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	keeper := compile(t, "keeper", "-lsystemd")
	port := port(t)
	n := (*pod)(nil).supervised(t, order{}, []string{"--service", "d", "--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0", "--fdstore-max", "1"}, keeper, port)
	n.until("/readyz", 200)

	var load sync.WaitGroup
	var asked atomic.Int64
	done := make(chan struct{})
	var mu sync.Mutex
	served := map[string]bool{}
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
				who, err := call("127.0.0.1:" + port)
				if err != nil {
					t.Errorf("after %d answers: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
				mu.Lock()
				served[who] = true
				mu.Unlock()
			}
		})
	}
	stop := sync.OnceFunc(func() { close(done); load.Wait() })
	defer stop()
	for i := range rounds {
		old := n.mainPID("d")
		if code, _, errs := n.command("respawn"); code != 0 {
			t.Fatalf("respawn %d ends with %d: %s", i, code, errs)
		}
		eventually(t, "the next is ready", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old && s.Ready })
		if before := asked.Load(); i%10 == 9 { // let each be busy at times
			eventually(t, "somebody is served", func() bool { return asked.Load() > before+8 || t.Failed() })
		}
		if t.Failed() {
			return
		}
	}
	stop()
	if want := "fresh\n" + strings.Repeat("handed\n", rounds); n.stdout.String() != want {
		t.Errorf("instances say %q, want the socket handed to all but the first", n.stdout.String())
	}
	if len(served) < rounds/10 {
		t.Errorf("%d answers came from %d instances of %d", asked.Load(), len(served), rounds+1)
	}
	t.Logf("%d answers of %d instances", asked.Load(), len(served))
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// call connects, says a byte, and returns what is answered.
func call(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, bound)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(bound))
	if _, err := c.Write([]byte("x")); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err == nil && len(b) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return string(b), err
}

// kept is a puppet whose descriptors podnotify keeps, 5 of them at most.
func kept(t *testing.T, flags ...string) (*podnotify, *puppet) {
	t.Helper()
	p := newPuppet(t)
	n := (*pod)(nil).supervised(t, p.order(order{}, ""), append([]string{"--service", "d", "--expect", "notify", "--respawn-mode", "exec", "--respawn-delay", "0", "--fdstore-max", "5"}, flags...), bin.self)
	p.say("READY=1")
	return n, p
}

// next respawns the puppet.
func (n *podnotify) next(p *puppet) {
	n.t.Helper()
	old := n.mainPID("d")
	if code, _, errs := n.command("respawn"); code != 0 {
		n.t.Fatalf("respawn ends with %d: %s", code, errs)
	}
	eventually(n.t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old })
	p.say("READY=1")
	n.until("/readyz", 200)
}

// holds is how many descriptors of a kind podnotify has open.
func (n *podnotify) holds(kind string) int {
	n.t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.Pid))
	if err != nil || len(fds) == 0 {
		n.t.Fatal("cannot read what is open: ", err)
	}
	count := 0
	for _, fd := range fds {
		what, _ := os.Readlink(fd)
		if what, _, _ = strings.Cut(what, ":["); what == kind {
			count++
		}
	}
	return count
}

// The descriptors of a puppet, in the order of assortment; a pipe whose other end
// is closed and a socket that is not connected have hung up.
const (
	null, socket, event, file, pipe = "/dev/null", "socket", "anon_inode", "/memfd:puppet (deleted)", "pipe"
)

// TestDescriptorStore: what is stored is handed to the next instance and to every
// one after it, under its name, until it is removed or hangs up.
func TestDescriptorStore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		deeds   []deed
		want    string
		dropped map[string]int
	}{
		"nothing":              {nil, "none", nil},
		"without a name":       {[]deed{{Data: []byte("FDSTORE=1\nFDPOLL=0"), FDs: 2}}, "stored=" + null + " stored=" + socket, nil},
		"with a name":          {[]deed{{Data: []byte("FDNAME=a b-1\nFDSTORE=1\nFDPOLL=0"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDNAME=")}, {Data: []byte("FDSTORE=1\nFDNAME="), FDs: 1}}, "a b-1=" + null + " =" + null, nil},
		"a name that is none":  {[]deed{{Data: []byte("FDSTORE=1\nFDNAME=a:b"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDNAME=\x01"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDNAME=" + strings.Repeat("x", 256)), FDs: 1}}, "stored=" + null + " stored=" + null + " stored=" + null, map[string]int{"bad-FDNAME": 3}},
		"not polled":           {[]deed{{Data: []byte("FDSTORE=1\nFDPOLL=0"), FDs: 5}}, "stored=" + null + " stored=" + socket + " stored=" + event + " stored=" + file + " stored=" + pipe, nil},
		"polled":               {[]deed{{Data: []byte("FDSTORE=1"), FDs: 5}}, "stored=" + null + " stored=" + event + " stored=" + file, nil},
		"removed":              {[]deed{{Data: []byte("FDSTORE=1\nFDNAME=a"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDNAME=b"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDNAME=a"), FDs: 1}, {Data: []byte("FDSTOREREMOVE=1\nFDNAME=a")}}, "b=" + null, nil},
		"removed, all":         {[]deed{{Data: []byte("FDSTORE=1"), FDs: 1}, {Data: []byte("FDSTOREREMOVE=1\nFDNAME=stored")}}, "none", nil},
		"removed, nobody":      {[]deed{{Data: []byte("FDSTORE=1"), FDs: 1}, {Data: []byte("FDSTOREREMOVE=1\nFDNAME=other")}, {Data: []byte("FDSTOREREMOVE=1")}}, "stored=" + null, nil},
		"removed beats stored": {[]deed{{Data: []byte("FDSTORE=1\nFDNAME=a"), FDs: 1}, {Data: []byte("FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=a"), FDs: 2}}, "none", map[string]int{"descriptors": 2}},
		"the same":             {[]deed{{Data: []byte("FDSTORE=1"), FDs: 4, Same: true}}, "stored=" + null, nil},
		"another of its kind":  {[]deed{{Data: []byte("FDSTORE=1"), FDs: 1}, {Data: []byte("FDSTORE=1"), FDs: 1}}, "stored=" + null + " stored=" + null, nil},
		"full":                 {[]deed{{Data: []byte("FDSTORE=1\nFDPOLL=0"), FDs: 8}}, "stored=" + null + " stored=" + socket + " stored=" + event + " stored=" + file + " stored=" + pipe, map[string]int{"fdstore-full": 3}},
		"full, and then no more": {[]deed{{Data: []byte("FDSTORE=1\nFDPOLL=0\nFDNAME=a"), FDs: 5}, {Data: []byte("FDSTORE=1"), FDs: 1}, {Data: []byte("FDSTOREREMOVE=1\nFDNAME=a")}, {Data: []byte("FDSTORE=1\nFDNAME=b"), FDs: 1}},
			"b=" + null, map[string]int{"fdstore-full": 1}},
		"not asked for": {[]deed{{Data: []byte("STATUS=x"), FDs: 3}, {Data: []byte("FDSTORE=0"), FDs: 1}}, "none", map[string]int{"descriptors": 4}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, p := kept(t)
			if got := p.ask(deed{Tell: true}); got != "none" {
				t.Errorf("the first is handed %q, want none", got)
			}
			pipes := n.holds(pipe)
			for _, d := range tt.deeds {
				p.do(d)
			}
			// What hung up is dropped in its own time.
			eventually(t, "the rest is closed", func() bool { return n.holds(file) == strings.Count(tt.want, file) })
			eventually(t, "what hung up is dropped", func() bool { return n.holds(pipe)-pipes == strings.Count(tt.want, pipe) })
			for i, reason := range []string{"fdstore-full", "bad-FDNAME", "descriptors", "fdstore-off"} {
				if got := n.facts("d").Counters.Dropped[reason]; got != tt.dropped[reason] {
					t.Errorf("%d: %d dropped for %s, want %d", i, got, reason, tt.dropped[reason])
				}
			}
			for i := range 3 {
				n.next(p)
				if got := p.ask(deed{Tell: true}); got != tt.want {
					t.Errorf("instance %d is handed %q, want %q", i+1, got, tt.want)
				}
			}
			n.signal(unix.SIGTERM)
			n.exit()
		})
	}
}

// TestDescriptorHangsUp: a stored descriptor goes when its other end does, be it
// while the daemon lives or with it, and however often they are respawned
// meanwhile.
func TestDescriptorHangsUp(t *testing.T) {
	t.Parallel()
	n, p := kept(t)
	before := n.holds(pipe) // its output
	p.do(deed{Data: []byte("FDSTORE=1\nFDNAME=end"), FDs: 1, Pipe: true})
	if n.holds(pipe) != before+1 {
		t.Error("it is not kept")
	}
	p.do(deed{Close: true})
	eventually(t, "it is dropped", func() bool { return n.holds(pipe) == before })
	n.next(p)
	if got := p.ask(deed{Tell: true}); got != "none" {
		t.Errorf("the next is handed %q, want none", got)
	}
	for range 20 { // the other end goes with the puppet, while the next one starts
		p.do(deed{Data: []byte("FDSTORE=1\nFDNAME=end"), FDs: 1, Pipe: true})
		n.next(p)
		if got := p.ask(deed{Tell: true}); got != "none" && got != "end="+pipe {
			t.Errorf("the next is handed %q, want none or what has just hung up", got)
		}
	}
	eventually(t, "all are dropped", func() bool { return n.holds(pipe) == before })
}

// TestDescriptorStoreOff: without fdstore.max nothing is kept, and it is counted.
func TestDescriptorStoreOff(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, begin beginner) {
		n, p := begun(t, begin)
		p.say("READY=1")
		p.do(deed{Data: []byte("FDSTORE=1\nFDNAME=a"), FDs: 4}) // the last is a file
		if got := n.statusz().Counters.Dropped["fdstore-off"]; got != 4 {
			t.Errorf("%d counted, want 4", got)
		}
		if got := n.statusz().Counters.Dropped["descriptors"]; got != 0 {
			t.Errorf("%d counted once more as unwanted", got)
		}
		if n.holds(file) != 0 {
			t.Error("they are not closed")
		}
		n.expect("/readyz", 200)
	})
}

// TestDescriptorStoreAdvert: the daemon is told how many it may store.
func TestDescriptorStoreAdvert(t *testing.T) {
	t.Parallel()
	for _, expect := range []string{"auto", "notify", "fork"} { // fork: nothing else would need the socket
		x, _ := once(t, order{}, []string{"--fdstore-max", "7", "--expect", expect, "--service", "d"}, "sh", "-c", `echo "$FDSTORE" "$NOTIFY_SOCKET" "$LISTEN_FDS"`)
		if f := strings.Fields(x.stdout.String()); len(f) != 2 || f[0] != strconv.Itoa(7) || !strings.HasSuffix(f[1], "/d/notify") {
			t.Errorf("%s: FDSTORE, NOTIFY_SOCKET and LISTEN_FDS are %q, want 7, the socket and nothing", expect, f)
		}
	}
}
