package notify

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSend(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	for _, tt := range []struct {
		name string
		send func() error
		want string
	}{
		{"Ready", func() error { return n.Ready("") }, `flag:READY=1`},
		{"Ready with status", func() error { return n.Ready("up") }, `flag:READY=1 STATUS:"up"`},
		{"Stopping", n.Stopping, `flag:STOPPING=1`},
		{"Status", func() error { return n.Status("ä b") }, `STATUS:"ä b"`},
		{"no Status", func() error { return n.Status("") }, `STATUS:""`},
		{"Status of several lines", func() error { return n.Status("a\nREADY=1\r\x00b") }, `STATUS:"a READY=1  b"`},
		{"Ready with a long status", func() error { return n.Ready(strings.Repeat("x", 5000)) },
			`flag:READY=1 STATUS:"` + strings.Repeat("x", MaxDatagram-len("READY=1\nSTATUS=")) + `"`},
		// 4089 bytes of room: four bytes too few for the last ä's second byte.
		{"long Status", func() error { return n.Status("x" + strings.Repeat("ä", 3000)) }, `STATUS:"x` + strings.Repeat("ä", 2044) + `"`},
		{"long Status, cut before a character", func() error { return n.Status(strings.Repeat("ä", 3000)) }, `STATUS:"` + strings.Repeat("ä", 2044) + `"`},
		{"long Status, not UTF-8", func() error { return n.Status(strings.Repeat("\x80", 5000)) }, `STATUS:"` + strings.Repeat(`\x80`, 4089) + `"`},
		{"Errno", func() error { return n.Errno(2) }, `ERRNO:"2"`},
		{"Errno 0", func() error { return n.Errno(0) }, `ERRNO:"0"`},
		{"MainPID", func() error { return n.MainPID(4711) }, `MAINPID:"4711"`},
		{"Watchdog", n.Watchdog, `WATCHDOG:"1"`},
		{"WatchdogTrigger", n.WatchdogTrigger, `WATCHDOG:"trigger"`},
		{"ExtendTimeout", func() error { return n.ExtendTimeout(90 * time.Second) }, `EXTEND_TIMEOUT_USEC:"90000000"`},
		{"ExtendTimeout, rounded up", func() error { return n.ExtendTimeout(1) }, `EXTEND_TIMEOUT_USEC:"1"`},
		{"ExtendTimeout, longest", func() error { return n.ExtendTimeout(math.MaxInt64) }, `EXTEND_TIMEOUT_USEC:"9223372036854776"`},
		{"Send", func() error { return n.Send("READY=1", "X_A=b", "") }, `flag:READY=1 ?"X_A"`},
		{"Send nothing", func() error { return n.Send() }, ``},
		{"longest Send", func() error { return n.Send("STOPPING=1", strings.Repeat("x", MaxDatagram-11)) },
			`flag:STOPPING=1 ?"` + strings.Repeat("x", MaxDatagram-11) + `"`},
	} {
		if err := tt.send(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var r recorder
		drainAll(t, l, &r)
		if !slices.Equal(r.got, []string{tt.want}) {
			t.Errorf("%s\n got %.200q\nwant %.200q", tt.name, r.got, tt.want)
		}
	}
}

func TestReloading(t *testing.T) {
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	var before, after unix.Timespec
	var usec uint64
	r := recorder{each: func(p *Packet) {
		v, _ := p.Message.Value(KeyMonotonicUsec)
		var err error
		if usec, err = ParseUint(v); err != nil || !p.Message.Has(FlagReloading) {
			t.Errorf("%s: %v", describe(&p.Message), err)
		}
	}}
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
	if err := n.Reloading(); err != nil {
		t.Fatal(err)
	}
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &after)
	drainAll(t, l, &r)
	if usec < uint64(before.Nano()/1000) || usec > uint64(after.Nano()/1000) {
		t.Errorf("%d µs is not between %d and %d ns", usec, before.Nano(), after.Nano())
	}
}

func TestSendErrors(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	for _, tt := range []struct {
		err  error
		want string
	}{
		{n.Send("READY=1", "STATUS=a\nb"), "line 2 contains a line end or a NUL"},
		{n.Send("READY=1\r"), "line 1 contains"},
		{n.Send("READY=1\x00"), "line 1 contains"},
		{n.Send(strings.Repeat("x", MaxDatagram+1)), "longer than 4096"},
		{n.Send("STOPPING=1", strings.Repeat("x", MaxDatagram-10)), "longer than 4096"},
		{n.Send(strings.Repeat("x", MaxDatagram), ""), "longer than 4096"},
		{n.Errno(-1), "not within 0 and 4095"},
		{n.Errno(4096), "not within 0 and 4095"},
		{n.MainPID(0), "no process number"},
		{n.MainPID(1 << 31), "no process number"},
		{n.ExtendTimeout(0), "cannot be extended"},
		{n.SendFDs(context.Background(), make([]int, MaxFDs+1), "FDSTORE=1"), "254 descriptors, the kernel allows 253"},
		{n.SendFDs(context.Background(), []int{-1}, "FDSTORE=1"), "bad file descriptor"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) || !strings.HasPrefix(tt.err.Error(), "cannot notify") {
			t.Errorf("got %v, want %q", tt.err, tt.want)
		}
	}
	if k := drainAll(t, l, &recorder{}); k != 0 {
		t.Errorf("%d datagrams were sent all the same", k)
	}
	for _, a := range []string{"", "relative", "vsock:2:1", "@" + strings.Repeat("x", 107)} {
		if _, err := NewNotifier(a); err == nil {
			t.Errorf("%q is no address", a)
		}
	}
	n.Close()
	if err := n.Ready(""); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := n.Close(); err != ErrClosed {
		t.Errorf("second Close: %v", err)
	}
}

// Nobody to speak to is not an error.
func TestNilNotifier(t *testing.T) {
	for _, unset := range []bool{true, false} {
		t.Setenv("NOTIFY_SOCKET", "")
		if unset {
			os.Unsetenv("NOTIFY_SOCKET")
		}
		n, err := FromEnv()
		if n != nil || err != nil {
			t.Fatalf("got %v, %v", n, err)
		}
		ctx := context.Background()
		if err := errors.Join(n.Ready("x"), n.Reloading(), n.Stopping(), n.Status("x"), n.Errno(1), n.MainPID(1), n.Watchdog(), n.WatchdogTrigger(),
			n.ExtendTimeout(1), n.Send("x"), n.SendFDs(ctx, []int{0}, "x"), n.Barrier(ctx), n.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestFromEnv(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	t.Setenv("NOTIFY_SOCKET", l.Env())
	n, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(""); err != nil {
		t.Fatal(err)
	}
	var r recorder
	drainAll(t, l, &r)
	expect(t, &r, "flag:READY=1")
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1")
	if n, err := FromEnv(); n != nil || err == nil {
		t.Errorf("vsock: got %v, %v", n, err)
	}
}

func TestNobodyListens(t *testing.T) {
	n := mustNotifier(t, filepath.Join(t.TempDir(), "absent"))
	if err := n.Ready(""); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("got %v", err)
	}
	if err := n.Barrier(context.Background()); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Barrier: got %v", err)
	}
}

// More than the queue holds must wait, not get lost and not change its order.
func TestSendWaitsForRoom(t *testing.T) {
	noLeak(t)
	const total = 2000
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	sent := make(chan error, 1)
	go func() {
		for i := range total {
			if err := n.Send(fmt.Sprint("MAINPID=", i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var r recorder
	for len(r.got) < total {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		if err := l.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		l.Drain(&r, 3)
	}
	if err := receive(t, "all sent", sent); err != nil {
		t.Fatal(err)
	}
	for i, s := range r.got {
		if want := fmt.Sprintf("MAINPID:%q", fmt.Sprint(i)); s != want {
			t.Fatalf("datagram %d: got %s, want %s", i, s, want)
		}
	}
}

// fill sends until the queue of l is full and returns how many datagrams fit.
func fill(t *testing.T, n *Notifier) int {
	t.Helper()
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		err := n.SendFDs(ctx, nil, "WATCHDOG=1")
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return i
		}
		if err != nil || i > 1<<20 {
			t.Fatal(i, err)
		}
	}
}

func TestReceiverDoesNotRead(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	full := fill(t, n)

	// One that waits without end keeps the others waiting; a context ends those, and
	// Close ends the one.
	blocked := make(chan error, 1)
	go func() { blocked <- n.Ready("") }()
	eventually(t, "Ready under way", func() bool { return len(n.lock) == 0 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.SendFDs(ctx, nil, "STOPPING=1"); !errors.Is(err, context.Canceled) {
		t.Errorf("SendFDs: got %v", err)
	}
	if err := n.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Barrier: got %v", err)
	}
	n.Close()
	if err := receive(t, "Close ends a send", blocked); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready: got %v, want ErrClosed", err)
	}
	if k := drainAll(t, l, &recorder{}); k != full {
		t.Errorf("%d datagrams queued, want %d", k, full)
	}
}

func TestBarrier(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())

	// A receiver that reads and keeps the descriptor has not answered yet.
	answer := make(chan error, 1)
	go func() { answer <- n.Barrier(context.Background()) }()
	if err := l.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	var kept []int
	r := recorder{each: func(p *Packet) {
		if p.Message.BarrierOnly() {
			kept = append(kept, p.TakeFDs()...)
		}
	}}
	drainAll(t, l, &r)
	expect(t, &r, "flag:BARRIER=1 barrier-only")
	if len(kept) != 1 {
		t.Fatalf("descriptors: %v", kept)
	}
	if _, err := unix.Write(kept[0], make([]byte, 1000)); err != nil { // nor does writing answer
		t.Fatal(err)
	}
	select {
	case err := <-answer:
		t.Fatalf("answered before the descriptor is closed: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	unix.Close(kept[0])
	if err := receive(t, "barrier answered", answer); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := n.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody reads: got %v", err)
	}
	drainAll(t, l, &recorder{})
}

func TestSendFDs(t *testing.T) {
	noLeak(t)
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	end, w := pipe(t)
	if err := n.SendFDs(context.Background(), []int{int(end.Fd()), int(w.Fd())}, "FDSTORE=1", "FDNAME=pair"); err != nil {
		t.Fatal(err)
	}
	r := recorder{each: func(p *Packet) {
		if len(p.FDs) != 2 {
			t.Fatalf("descriptors: %v", p.FDs)
		}
		if _, err := unix.Write(p.FDs[1], []byte("x")); err != nil {
			t.Error(err)
		}
	}}
	drainAll(t, l, &r)
	expect(t, &r, `flag:FDSTORE=1 FDNAME:"pair"`)
	if k, err := end.Read(make([]byte, 2)); k != 1 || err != nil { // the sender's own are still open
		t.Errorf("read %d, %v", k, err)
	}
}

func TestSendAllocates(t *testing.T) {
	l := mustListen(t, Config{})
	n := mustNotifier(t, l.Env())
	status := "serving"
	var c counter
	for name, send := range map[string]func(){
		"Ready":         func() { n.Ready(status) },
		"Reloading":     func() { n.Reloading() },
		"Stopping":      func() { n.Stopping() },
		"Status":        func() { n.Status(status) },
		"Errno":         func() { n.Errno(28) },
		"MainPID":       func() { n.MainPID(4711) },
		"Watchdog":      func() { n.Watchdog() },
		"ExtendTimeout": func() { n.ExtendTimeout(time.Hour) },
		"Send":          func() { n.Send("READY=1", status) },
	} {
		c = counter{}
		if allocs := testing.AllocsPerRun(100, func() { send(); l.Drain(&c, 10) }); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
		if c.packets != 101 {
			t.Errorf("%s: %d datagrams of 101", name, c.packets)
		}
	}
}

func TestWatchdogInterval(t *testing.T) {
	me := fmt.Sprint(os.Getpid())
	const unset = "unset"
	for _, tt := range []struct {
		usec, pid string
		want      time.Duration
		ok        bool
	}{
		{"1500000", unset, 1500 * time.Millisecond, true},
		{"1500000", me, 1500 * time.Millisecond, true},
		{"1500000", "1", 0, false},
		{"1500000", "", 0, false},
		{"1500000", "me", 0, false},
		{"0", unset, 0, false},
		{"", unset, 0, false},
		{unset, unset, 0, false},
		{"-1", unset, 0, false},
		{"1s", unset, 0, false},
		{"18446744073709551615", unset, 0, false}, // systemd's infinity
		{"18446744073709551614", unset, math.MaxInt64 / 1000 * time.Microsecond, true},
	} {
		for name, v := range map[string]string{"WATCHDOG_USEC": tt.usec, "WATCHDOG_PID": tt.pid} {
			t.Setenv(name, v)
			if v == unset {
				os.Unsetenv(name)
			}
		}
		if got, ok := WatchdogInterval(); got != tt.want || ok != tt.ok {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: got %v, %v, want %v, %v", tt.usec, tt.pid, got, ok, tt.want, tt.ok)
		}
	}
}
