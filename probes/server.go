package probes

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Server is an HTTP server for h that no client can hold up: a request has to
// arrive and its answer has to be taken within seconds, headers are small, and
// an idle connection is closed after a minute.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            5 * time.Second,
		ReadTimeout:                  5 * time.Second,
		WriteTimeout:                 10 * time.Second,
		IdleTimeout:                  time.Minute,
		MaxHeaderBytes:               8 << 10,
		DisableGeneralOptionsHandler: true, // OPTIONS * is a method like any other
	}
}

// Limit keeps at most n connections of l open. One more closes another one, rather
// than waiting in the queue: the oldest of the address that has most of them. So who
// holds connections open, or opens many, loses them, and a probe, which is over in less
// than a millisecond, gets in and finishes. Where exhausted says of an error that
// there is no descriptor left for one more, likewise, but not one that is younger than any
// probe lasts. It may be nil.
func Limit(l net.Listener, n int, exhausted func(error) bool) net.Listener {
	return &limited{Listener: l, n: max(n, 1), exhausted: exhausted, from: map[netip.Addr]int{}}
}

// again is how long a listener waits for a descriptor. Nobody tells when there is one,
// nor, while there is none, whether somebody is at the door.
const again = 20 * time.Millisecond

// stale is the age at which a connection may be closed for a descriptor.
const stale = time.Second

type limited struct {
	net.Listener
	n         int
	exhausted func(error) bool

	mu   sync.Mutex
	open list.List          // of *limitedConn, in the order of their accept
	from map[netip.Addr]int // how many of each address
}

type limitedConn struct {
	net.Conn
	l     *limited
	at    *list.Element
	from  netip.Addr
	since time.Time
}

// peer is the address that a connection is counted for; all of a unix socket are
// alike. An IPv6 network of 64 bits is one peer: one host has all of its addresses. So is
// what is in our own network namespace and has all of 127/8; kubelet is not.
func peer(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap()
	if a.IsLoopback() {
		return netip.IPv6Loopback()
	}
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// victim is the connection that makes room. The lock is held.
func (l *limited) victim() *limitedConn {
	most := 0
	for _, n := range l.from {
		most = max(most, n)
	}
	for e := l.open.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*limitedConn); l.from[c.from] == most {
			return c
		}
	}
	return nil
}

// forget takes a connection out of the count. The lock is held.
func (l *limited) forget(c *limitedConn) {
	if c.at == nil {
		return // it had to make room already
	}
	l.open.Remove(c.at)
	c.at = nil
	if l.from[c.from]--; l.from[c.from] == 0 {
		delete(l.from, c.from)
	}
}

func (l *limited) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	for ; err != nil; c, err = l.Listener.Accept() {
		if l.exhausted == nil || !l.exhausted(err) {
			return nil, err
		}
		l.shed()
		time.Sleep(again)
	}
	lc := &limitedConn{Conn: c, l: l, from: peer(c), since: time.Now()}
	var out *limitedConn
	l.mu.Lock()
	if l.open.Len() >= l.n {
		out = l.victim()
		l.forget(out)
	}
	lc.at = l.open.PushBack(lc)
	l.from[lc.from]++
	l.mu.Unlock()
	if out != nil {
		_ = out.Conn.Close()
	}
	return lc, nil
}

// shed closes a connection, if it was accepted long ago.
func (l *limited) shed() {
	l.mu.Lock()
	out := l.victim()
	if out == nil || time.Since(out.since) < stale {
		l.mu.Unlock()
		return
	}
	l.forget(out)
	l.mu.Unlock()
	_ = out.Conn.Close()
}

func (c *limitedConn) Close() error {
	c.l.mu.Lock()
	c.l.forget(c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// NetConn is the connection itself.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite lets net/http end an answer to a client that is still sending
// without a reset that would take the answer with it.
func (c *limitedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
