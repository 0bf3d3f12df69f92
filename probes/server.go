package probes

import (
	"container/list"
	"net"
	"net/http"
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
		ReadTimeout:                  10 * time.Second,
		WriteTimeout:                 10 * time.Second,
		IdleTimeout:                  time.Minute,
		MaxHeaderBytes:               8 << 10,
		DisableGeneralOptionsHandler: true, // OPTIONS * is a method like any other
	}
}

// Limit keeps at most n connections of l open. One more closes the one that was
// accepted first, rather than waiting in the queue: who holds connections open
// loses them, and a probe, which is over in less than a millisecond, always gets
// in and nearly always finishes. Where
// exhausted says of an error that there is no descriptor left for one more, that one is
// closed if it is no probe's, going by its age. It may be nil.
func Limit(l net.Listener, n int, exhausted func(error) bool) net.Listener {
	return &limited{Listener: l, n: max(n, 1), exhausted: exhausted}
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
	open list.List // of *limitedConn, in the order of their accept
}

type limitedConn struct {
	net.Conn
	l  *limited
	at *list.Element

	since time.Time
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
	lc := &limitedConn{Conn: c, l: l, since: time.Now()}
	var oldest *limitedConn
	l.mu.Lock()
	lc.at = l.open.PushBack(lc)
	if l.open.Len() > l.n {
		oldest = l.open.Remove(l.open.Front()).(*limitedConn)
	}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
	}
	return lc, nil
}

// shed closes the connection that was accepted first, if that was long ago.
func (l *limited) shed() {
	l.mu.Lock()
	first := l.open.Front()
	if first == nil || time.Since(first.Value.(*limitedConn).since) < stale {
		l.mu.Unlock()
		return
	}
	l.open.Remove(first)
	l.mu.Unlock()
	_ = first.Value.(*limitedConn).Conn.Close()
}

func (c *limitedConn) Close() error {
	c.l.mu.Lock()
	c.l.open.Remove(c.at) // nothing, if it had to make room already
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets net/http end an answer to a client that is still sending
// without a reset that would take the answer with it.
func (c *limitedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
