package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// probe has a process ask as kubelet does: a connection each. It comes from the peer whose
// connections make room for others, as a health check in the pod does: that is harder.
func probe(t *testing.T, n *podnotify, times int) (b beaten) {
	t.Helper()
	p := n.actor(stranger, "probe", n.address, "d", strconv.Itoa(times))
	if err := p.out.Decode(&b); err != nil {
		t.Fatalf("a probe is not answered: %v", err)
	}
	return b
}

// probing is the actor: actor probe ADDRESS TIMES.
func probing() error {
	times, _ := strconv.Atoi(os.Args[3])
	dialer := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 9, 9)}}
	var took []float64
	for range times {
		began := time.Now()
		c, err := dialer.Dial("tcp", os.Args[2])
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(bound))
		fmt.Fprintf(c, "GET /readyz/d HTTP/1.1\r\nHost: %s\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n", os.Args[2])
		answer, err := io.ReadAll(c)
		c.Close()
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
			return fmt.Errorf("the answer is %q, %w", answer, err)
		}
		took = append(took, float64(time.Since(began).Nanoseconds())/1000)
		time.Sleep(2 * time.Millisecond)
	}
	return json.NewEncoder(os.Stdout).Encode(percentiles(took))
}

// slowly is a client that holds a connection for as long as it can, and then another one.
func slowly(address string, r *rand.Rand, end <-chan struct{}, opened *atomic.Int64) {
	for !over(end) {
		c, err := net.DialTimeout("tcp", address, bound)
		if err != nil {
			continue
		}
		opened.Add(1)
		cut := make(chan struct{}) // the connection's end
		go func() {
			select {
			case <-end:
				c.Close()
			case <-cut:
			}
		}()
		cling(c, r, end)
		close(cut)
		c.Close()
		select {
		case <-end:
		case <-time.After(time.Duration(100+r.IntN(900)) * time.Millisecond):
		}
	}
}

// cling returns when the connection is over.
func cling(c net.Conn, r *rand.Rand, end <-chan struct{}) {
	drip := func(what string) {
		for !over(end) {
			if _, err := io.WriteString(c, what); err != nil {
				return
			}
			time.Sleep(time.Duration(50+r.IntN(100)) * time.Millisecond)
		}
	}
	switch r.IntN(6) {
	case 0: // says nothing
		_, _ = io.Copy(io.Discard, c)
	case 1: // one byte of the request at a time
		drip("G")
	case 2: // headers without an end
		_, _ = io.WriteString(c, "GET /readyz/d HTTP/1.1\r\nHost: x\r\n")
		drip("X-Slow: 1\r\n")
	case 3: // a body without an end
		_, _ = io.WriteString(c, "GET /readyz/d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
		drip("x")
	case 4: // asks, and never reads an answer
		drip("GET /statusz HTTP/1.1\r\nHost: x\r\n\r\n")
	case 5: // large headers
		_, _ = io.WriteString(c, "GET /readyz/d HTTP/1.1\r\nX-Large: "+strings.Repeat("x", 64<<10))
		_, _ = io.Copy(io.Discard, c)
	}
}

// TestSlowHTTP: a thousand clients hold connections half open, drip, and never read. Every
// probe of a kubelet is answered, and memory is bounded.
func TestSlowHTTP(t *testing.T) {
	needRoot(t)
	s := seed(t)
	n := sidecar(t, room(t), nil, "d")
	d := n.speaker("d")
	d.say("READY=1")
	probes := number("PODNOTIFY_PROBES", 500)
	probe(t, n, 100)
	quiet := probe(t, n, probes)
	end := make(chan struct{})
	var clients sync.WaitGroup
	var opened atomic.Int64
	for i := range 1000 {
		clients.Go(func() { slowly(n.address, rand.New(rand.NewPCG(s, uint64(i))), end, &opened) })
	}
	eventually(t, "a thousand clients have connected", func() bool { return opened.Load() >= 1000 })
	most := n.weigh()
	slow := probe(t, n, probes)
	most.atLeast(n.weigh())
	close(end)
	clients.Wait()
	t.Logf("%d connections of slow clients, %d probes, us: quiet p50 %.0f p99 %.0f max %.0f; beside them p50 %.0f p99 %.0f max %.0f; p99 is %.1f times as long",
		opened.Load(), slow.Count, quiet.P50, quiet.P99, quiet.Max, slow.P50, slow.P99, slow.Max, slow.P99/quiet.P99)
	t.Logf("podnotify held at most %d KiB, %d descriptors", most.anonymous, most.fds)
	n.light(most)
	if most.fds > 256+60 {
		t.Errorf("%d descriptors: more than 256 connections", most.fds)
	}
	eventually(t, "connections are closed", func() bool { return n.weigh().fds < 60 })
	n.expect("/readyz/d", 200)
}
