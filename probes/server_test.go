package probes

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const bound = 20 * time.Second // for what should take no time at all

// serve runs Server on a Limit listener until the test ends.
func serve(t *testing.T, n int, change func(*http.Server)) (address string, l *limited) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = Limit(hosts{tcp}, n, nil).(*limited)
	server := Server(handlerOf(newFake("redis", ready())))
	if change != nil {
		change(server)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-ended; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		for deadline := time.Now().Add(bound); l.count() != 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%d connections are still counted", l.count())
				break
			}
		}
	})
	return tcp.Addr().String(), l
}

// hosts has those who come from 127.0.0.2 to 9 be other hosts.
type hosts struct{ net.Listener }

func (h hosts) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if a := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().As4(); a[2] == 0 && a[3] > 1 && a[3] < 10 {
		return connOf{c, fmt.Sprint("192.0.2.", a[3])}, nil
	}
	return c, nil
}

func (l *limited) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open.Len()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, bound)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	return c
}

// probe asks as kubelet does: a connection for each probe.
func probe(t *testing.T, address string) {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	fmt.Fprintf(c, "GET /readyz/redis HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(answer), "\r\n\r\nok") {
		t.Fatalf("%q, %v", answer, err)
	}
}

// TestSlowClients: those who hold connections open lose them, and a probe is
// answered all the same.
func TestSlowClients(t *testing.T) {
	const n = 4
	// No time-out helps here: only making room does.
	address, l := serve(t, n, func(s *http.Server) { s.ReadHeaderTimeout, s.ReadTimeout = time.Hour, time.Hour })
	var slow []net.Conn
	for i := range 40 {
		c := dial(t, address)
		if i%2 == 0 {
			fmt.Fprintf(c, "GET /readyz/redis HTTP/1.1\r\nX-Slow: ") // and never ends
		}
		slow = append(slow, c)
		if i%10 == 9 {
			probe(t, address)
		}
	}
	for i, c := range slow[:len(slow)-n] {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d was answered", i)
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Errorf("connection %d is still open", i)
		}
	}
	if open := l.count(); open > n {
		t.Errorf("%d connections open, at most %d", open, n)
	}
}

// TestManyOfOneAddress: who opens more connections than all others loses its own, and
// nobody else's, however many they are, also with all the addresses of 127/8.
func TestManyOfOneAddress(t *testing.T) {
	const n = 4
	address, l := serve(t, n, func(s *http.Server) { s.ReadHeaderTimeout, s.ReadTimeout = time.Hour, time.Hour })
	from := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := from.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	var many []net.Conn
	for i := range 10 * n {
		d := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}}
		c, err := d.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(bound))
		many = append(many, c)
	}
	for _, c := range many[:len(many)-n] { // all but the newest are closed by now, or soon
		c.Read(make([]byte, 1))
	}
	fmt.Fprintf(c, "GET /readyz/redis HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("the oldest of all, the only one of its address: %q, %v", answer, err)
	}
	if open := l.count(); open > n {
		t.Errorf("%d connections open, at most %d", open, n)
	}
}

func TestPeer(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"127.0.0.1", "::ffff:127.0.0.1"},
		{"2001:db8::1", "2001:db8::ffff:2"},
		{"fe80::1%lo", "fe80::2"},
		{"127.0.0.1", "127.255.255.254"},
		{"127.0.0.1", "::1"},
	} {
		if a, b := peer(connOf{a: tt.a}), peer(connOf{a: tt.b}); a != b || !a.IsValid() {
			t.Errorf("%s is %v, %s is %v", tt.a, a, tt.b, b)
		}
	}
	if a, b := peer(connOf{a: "2001:db8:0:1::1"}), peer(connOf{a: "2001:db8:0:2::1"}); a == b {
		t.Error("two networks are one peer")
	}
}

// connOf is a connection from an address.
type connOf struct {
	net.Conn
	a string
}

func (c connOf) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.a), 1))
}

// TestHeaderTimeout: a request that does not arrive ends by itself.
func TestHeaderTimeout(t *testing.T) {
	address, _ := serve(t, 8, func(s *http.Server) { s.ReadHeaderTimeout = 50 * time.Millisecond })
	c := dial(t, address)
	fmt.Fprintf(c, "GET /readyz HTTP/1.1\r\n")
	if answer, err := io.ReadAll(c); err != nil || strings.Contains(string(answer), "200 OK") {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestBigHeader(t *testing.T) {
	address, _ := serve(t, 8, nil)
	c := dial(t, address)
	go fmt.Fprintf(c, "GET /readyz HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", strings.Repeat("a", 64<<10))
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(answer.Status)
	}
	probe(t, address)
}

func TestOptionsStar(t *testing.T) {
	address, _ := serve(t, 8, nil)
	c := dial(t, address)
	fmt.Fprintf(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404 ") {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestServerBounds: no time-out of the server may be missing.
func TestServerBounds(t *testing.T) {
	s := Server(http.NotFoundHandler())
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 || s.MaxHeaderBytes > 64<<10 {
		t.Errorf("%+v", s)
	}
}
