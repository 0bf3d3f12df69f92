package faults

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// What a daemon of the storm is, and so what podnotify has to say of it.
const (
	none      = "none"
	starting  = "starting"
	ready     = "ready"
	reloading = "reloading"
	stopping  = "stopping"
	doubtful  = "doubtful" // podnotify was killed while it was reloading: not ready until it speaks
)

// life is one service of the storm.
type life struct {
	name string
	d    *actor
	is   string
}

// storm is a podnotify, its daemons, and all that goes on at a time.
type storm struct {
	t     *testing.T
	r     *rand.Rand
	n     *podnotify
	lives []*life
	held  []net.Conn // by slow clients
	most  weight
	done  []string // what was done, for who has to find out
}

// TestStorm does whatever there is, in an order that the seed chooses: daemons come,
// speak and go, strangers flood and forge, clients cling, podnotify is killed. After each
// step every answer is right: never a wrong ready, never a lost one, ready implies live,
// STOPPING=1 is seen, all are answered.
func TestStorm(t *testing.T) {
	needRoot(t)
	s := seed(t)
	x := &storm{t: t, r: rand.New(rand.NewPCG(s, 7))}
	dir := room(t)
	for i := range 3 {
		x.lives = append(x.lives, &life{name: fmt.Sprintf("s%d", i), is: none})
	}
	x.begin(dir)
	defer func() {
		if t.Failed() {
			t.Logf("what was done:\n%s", strings.Join(x.done, "\n"))
		}
	}()
	for range number("PODNOTIFY_STEPS", 300) {
		x.step()
		x.check()
	}
	t.Logf("podnotify held at most %d KiB, %d descriptors, %d threads", x.most.anonymous, x.most.fds, x.most.threads)
	x.n.light(x.most)
	for _, c := range x.held {
		c.Close()
	}
}

func (x *storm) begin(dir string) {
	var names []string
	for _, l := range x.lives {
		names = append(names, l.name)
	}
	x.n = sidecar(x.t, dir, nil, names...)
}

// step does one thing.
func (x *storm) step() {
	l := x.lives[x.r.IntN(len(x.lives))]
	note := func(what string) { x.done = append(x.done, what+" "+l.name+", "+l.is) }
	foreign := func(d deed) {
		note(fmt.Sprintf("a stranger says %.40q with %v to", d.Data, d.FDs))
		d.Repeat = 1 + x.r.IntN(20)
		a := x.n.actor(stranger, "speak", "nobody", l.name)
		if err := a.do(d); err != nil {
			x.t.Errorf("%+v: %v", d, err)
		}
		a.kill()
	}
	say := func(is string, lines ...string) {
		note(strings.Join(lines, ", ") + " of")
		l.d.say(lines...)
		l.is = is
	}
	switch x.r.IntN(14) {
	case 0:
		foreign(deed{Data: "READY=1"})
	case 1:
		foreign(deed{Data: "STOPPING=1\nSTATUS=theirs"})
	case 2:
		foreign(deed{Data: "FDSTORE=1", FDs: []string{"memfd", "pipe", "null"}, Times: 1 + x.r.IntN(80)})
	case 3:
		foreign(deed{Data: strings.Repeat("x", x.r.IntN(6000)), FDs: []string{"event"}})
	case 4:
		foreign(deed{Data: fmt.Sprintf("MAINPID=%d\nREADY=1", 1+x.r.IntN(200))})
	case 5: // clients that say half of something
		note("slow clients beside")
		for range 50 {
			c, err := net.DialTimeout("tcp", x.n.address, bound)
			if err != nil {
				x.t.Fatal(err)
			}
			fmt.Fprint(c, "GET /readyz HTTP/1.1\r\nX-Slow: ")
			x.held = append(x.held, c)
		}
		for len(x.held) > 500 {
			x.held[0].Close()
			x.held = x.held[1:]
		}
	case 6:
		if x.r.IntN(4) > 0 {
			return
		}
		note("podnotify is killed beside")
		x.most.atLeast(x.n.weigh())
		x.n.kill()
		x.begin(x.n.dir)
		for _, l := range x.lives {
			if l.is == reloading {
				l.is = doubtful
			}
		}
	default:
		switch {
		case l.is == none:
			note("a daemon of")
			l.d = x.n.speaker(l.name)
			say(starting, "STATUS=warming up")
		case x.r.IntN(6) == 0:
			note("the end of")
			l.d.kill()
			l.is = none
			eventually(x.t, "the end is seen", func() bool { return !x.n.status(l.name).Ready })
		case l.is == stopping: // it repeats itself, as some do
			say(stopping, "STOPPING=1", "READY=1")
		case l.is == ready && x.r.IntN(3) == 0:
			say(stopping, "STOPPING=1")
		case l.is == ready && x.r.IntN(2) == 0:
			say(reloading, "RELOADING=1", "MONOTONIC_USEC=1")
		case x.r.IntN(3) == 0:
			say(l.is, "STATUS=busy", "X=1")
		default:
			say(ready, "READY=1", fmt.Sprintf("MAINPID=%d", l.d.pid))
		}
	}
}

// check asks everything once.
func (x *storm) check() {
	x.t.Helper()
	all := 200
	for _, l := range x.lives {
		want := 503
		if l.is == ready || l.is == reloading {
			want = 200
		} else {
			all = 503
		}
		x.n.expect("/readyz/"+l.name, want)
		x.n.expect("/livez/"+l.name, 200)
		if s := x.n.status(l.name); s.Ready != (want == 200) || l.is == stopping && s.Phase != "stopping" || l.is == ready && s.Main.PID != l.d.pid {
			x.t.Fatalf("%s is %s, and said to be %+v", l.name, l.is, s)
		}
	}
	x.n.expect("/readyz", all)
	x.n.expect("/healthz", 200)
	if len(x.done)%10 == 0 {
		x.most.atLeast(x.n.weigh())
	}
}
