package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// datagrams: as fast as one sender can, until all are applied.
func datagrams(b *bench) error {
	count := b.of(200000, 2000)
	for _, w := range []struct {
		what   string
		wrap   []string // before podnotify
		ref    []string
		sender []string
		target goal
	}{
		{"datagrams, by credentials (as on a kernel before 6.5)", []string{b.path("nopidfd")}, nil, nil, ratioAtLeast(0.9)},
		{"datagrams, by pidfd", nil, []string{"-p"}, nil, ratioAtLeast(0.9)},
		{"datagrams, by pidfd, a socket each as libsystemd does", nil, []string{"-p"}, []string{"-c"}, none},
	} {
		var ourCPU, refCPU []float64
		flood := func(socket string, pid int, spent *[]float64) ([]float64, error) {
			before := cpu(pid)
			rows, err := b.numbers(true, append(append([]string{"flood", "-r"}, w.sender...), socket, strconv.Itoa(count))...)
			if err != nil {
				return nil, err
			}
			*spent = append(*spent, float64((cpu(pid)-before).Nanoseconds())/float64(count)/1000)
			return []float64{float64(count) / column(rows, 0)[0] * 1e6}, nil
		}
		ours := func() ([]float64, error) {
			p, _, socket, err := b.sidecar(w.wrap, "--expect", "notify")
			if err != nil {
				return nil, err
			}
			defer p.stop()
			return flood(socket, p.Process.Pid, &ourCPU)
		}
		ref := func() ([]float64, error) {
			socket := filepath.Join(b.dir, "recv")
			defer os.Remove(socket)
			p, err := b.start(true, append(append([]string{"recv"}, w.ref...), socket)...)
			if err != nil {
				return nil, err
			}
			defer p.kill()
			if err := wait("the reference's socket", exists(socket)); err != nil {
				return nil, err
			}
			return flood(socket, p.Process.Pid, &refCPU)
		}
		a, r, err := turns(b.of(9, 1), ours, ref)
		if err != nil {
			return err
		}
		b.table.add("Datagrams",
			row{what: w.what, unit: "1000/s", ours: median(a), ref: median(r), target: w.target,
				note: fmt.Sprintf("reference: C recvmsg loop; best of each: %s and %s", figure(slices.Max(a)), figure(slices.Max(r)))},
			row{what: "processor time of each", unit: "us", ours: median(ourCPU), ref: median(refCPU), target: none})
	}
	if !b.short {
		b.table.add("Datagrams", b.systemdDatagrams())
	}
	return nil
}

// ready: from READY=1 to a probe that says yes, against one round trip to a server that
// knows nothing. Each round has both anew: how fast a program is depends on where the
// kernel has put its pages, and stays so for its life. What they do first does not count.
func ready(b *bench) error {
	var gets, flips, firsts, barriers timed
	for range b.of(8, 1) { // of four pairs chance made up to 0.1 x
		if err := readyOnce(b, &gets, &flips, &firsts, &barriers); err != nil {
			return err
		}
	}
	const title = "READY=1 to 200"
	for _, x := range []struct {
		*timed
		what, note string
		target     goal
	}{
		{&gets, "a probe over a new connection", "reference: bare net/http", none},
		{&flips, "READY=1 after a reload, until a probe says 200", "reference: one round trip to bare net/http", ratioAtMost(1.1)},
		{&firsts, "the first READY=1 of a new process", "reference: one round trip of a new process to bare net/http", ratioAtMost(1.1)},
	} {
		b.table.add(title, row{what: x.what + ", p50", unit: "us", ours: median(x.ours), ref: median(x.ref), target: x.target, note: x.note},
			row{what: "p99", unit: "us", ours: percentile(x.ours, .99), ref: percentile(x.ref, .99), target: none})
	}
	b.table.add(title, row{what: "first probe after BARRIER=1 says 200", unit: "%", ours: 100 * share(barriers.probes, 1), ref: missing, target: atLeast(100)})
	return nil
}

// timed is what both sides took, and how many probes ours needed.
type timed struct{ ours, ref, probes []float64 }

// readyOnce is a round.
func readyOnce(b *bench, gets, flips, firsts, barriers *timed) error {
	bare, err := b.bareServer()
	if err != nil {
		return err
	}
	defer bare.kill()
	p, port, socket, err := b.sidecar(nil, "--expect", "notify", "--policy-reloading", "not-ready", "--select-process", "/ready (flip|barrier|first) ")
	if err != nil {
		return err
	}
	defer p.stop()
	time.Sleep(time.Duration(b.of(1500, 0)) * time.Millisecond) // it has given back the memory of its start
	ask := func(into *timed, what string, at int, path, count string) error {
		rows, err := b.numbers(true, "ready", what, strconv.Itoa(at), path, socket, count)
		if err != nil {
			return err
		}
		took := scaled(column(rows, 0), 1000)
		if at == barePort {
			into.ref = append(into.ref, took...)
		} else {
			into.ours, into.probes = append(into.ours, took...), append(into.probes, column(rows, 1)...)
		}
		return nil
	}
	gone := func() error {
		return wait("that the last daemon has ended", func() bool { return probe(port, "/readyz") == 503 })
	}
	n := strconv.Itoa(b.of(60, 5))
	var warmingUp timed
	for i := range b.of(4, 1) {
		gets, flips, firsts := gets, flips, firsts
		if i == 0 && !b.short {
			gets, flips, firsts = &warmingUp, &warmingUp, &warmingUp
		}
		err = errors.Join(
			ask(gets, "get", port, "/livez", n), // says yes before there is anything
			ask(gets, "get", barePort, "/", n),
			ask(flips, "flip", port, "/readyz", n),
			ask(flips, "get", barePort, "/", n))
		for range b.of(10, 2) {
			err = errors.Join(err, gone())
			time.Sleep(5 * time.Millisecond)
			err = errors.Join(err, ask(firsts, "first", port, "/readyz", "1"), ask(firsts, "once", barePort, "/", "1"))
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(gone(), ask(barriers, "barrier", port, "/readyz", n))
}

// share is how many of all are v.
func share(all []float64, v float64) float64 {
	n := 0
	for _, f := range all {
		if f == v {
			n++
		}
	}
	return float64(n) / float64(len(all))
}

const barePort = 19299

// bareServer starts the bare net/http server.
func (b *bench) bareServer() (*process, error) {
	p, err := b.start(true, "nethttp", "127.0.0.1:"+strconv.Itoa(barePort))
	if err != nil {
		return nil, err
	}
	if err := wait("the bare server", func() bool { return probe(barePort, "/") == 200 }); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// flooded: what one service's flood does to another's answers.
func flooded(b *bench) error {
	b.port++
	port := b.port
	dir := filepath.Join(b.dir, strconv.Itoa(port))
	text := fmt.Sprintf(`listen: "127.0.0.1:%d"
run-dir: %s
services:
  - {name: loud, expect: notify, select: {process: "/flood "}}
  - {name: quiet, expect: notify, select: {process: "/ready (flip|get)"}, policy: {reloading: not-ready}}
  - {name: beat, expect: notify, select: {process: "/beat "}}
`, port, dir)
	p, err := b.configured("flood.yaml", text, port)
	if err != nil {
		return err
	}
	defer p.stop()
	loud, quiet := filepath.Join(dir, "loud", "notify"), filepath.Join(dir, "quiet", "notify")
	n := strconv.Itoa(b.of(300, 5))
	var sends, quietSends []float64
	flip := func(f *process) func() ([]float64, error) {
		return func() ([]float64, error) {
			var err error
			if f != nil {
				if f, err = b.start(false, "flood", "-r", loud, "0"); err != nil {
					return nil, err
				}
				defer f.kill()
				if err := wait("the flood", func() bool { return probe(port, "/readyz/loud") == 200 }); err != nil {
					return nil, err
				}
			}
			rows, err := b.numbers(true, "ready", "flip", strconv.Itoa(port), "/readyz/quiet", quiet, n)
			if err != nil {
				return nil, err
			}
			beats, err := b.numbers(true, "beat", filepath.Join(dir, "beat", "notify"), n)
			if err != nil {
				return nil, err
			}
			if took := scaled(column(beats, 0), 1000); f != nil {
				sends = append(sends, took...)
			} else {
				quietSends = append(quietSends, took...)
			}
			return scaled(column(rows, 0), 1000), nil
		}
	}
	loudA, quietA, err := turns(b.of(4, 1), flip(&process{}), flip(nil))
	if err != nil {
		return err
	}
	b.table.add("One service floods, another says READY=1",
		row{what: "READY=1 to 200 of the other, p50", unit: "us", ours: median(loudA), ref: median(quietA), target: none, note: "reference: the same without the flood"},
		row{what: "p99", unit: "us", ours: percentile(loudA, .99), ref: percentile(quietA, .99), target: ratioAtMost(3)},
		row{what: "longest", unit: "us", ours: slices.Max(loudA), ref: slices.Max(quietA), target: none},
		row{what: "the send of a third, p50", unit: "us", ours: median(sends), ref: median(quietSends), target: none},
		row{what: "p99", unit: "us", ours: percentile(sends, .99), ref: percentile(quietSends, .99), target: ratioAtMost(3)},
		row{what: "longest", unit: "us", ours: slices.Max(sends), ref: slices.Max(quietSends), target: none},
		row{what: "probes answered", unit: "%", ours: 100, ref: missing, target: atLeast(100), note: "a probe without an answer ends the run"})
	return nil
}

// slow: what a thousand HTTP clients that cling to their connections do to the probes of
// others.
func slow(b *bench) error {
	p, port, socket, err := b.sidecar(nil, "--expect", "notify", "--select-process", "/speaker ")
	if err != nil {
		return err
	}
	defer p.stop()
	d, err := b.speaker(socket, "x", port)
	if err != nil {
		return err
	}
	defer d.kill()
	n := strconv.Itoa(b.of(1000, 5))
	var opened, spent float64
	probes := func(clients int) func() ([]float64, error) {
		return func() ([]float64, error) {
			if clients > 0 {
				c, err := b.start(false, "cling", strconv.Itoa(port), strconv.Itoa(clients))
				if err != nil {
					return nil, err
				}
				begin, before := time.Now(), cpu(p.Process.Pid)
				defer func() {
					c.kill()
					took := time.Since(begin).Seconds()
					opened = 1000 * float64(bytes.Count(c.log.Bytes(), []byte("\n"))) / took
					spent = 100 * (cpu(p.Process.Pid) - before).Seconds() / took
				}()
				time.Sleep(2 * time.Second) // all have connected, and most were closed
			}
			rows, err := b.numbers(true, "ready", "get", strconv.Itoa(port), "/readyz", "-", n)
			return scaled(column(rows, 0), 1000), err
		}
	}
	loud, quiet, err := turns(b.of(4, 1), probes(1000), probes(0))
	if err != nil {
		return err
	}
	b.table.add("1000 slow HTTP clients, and the probes of another",
		row{what: "a probe over a new connection, p50", unit: "us", ours: median(loud), ref: median(quiet), target: none, note: "reference: the same without them"},
		row{what: "p99", unit: "us", ours: percentile(loud, .99), ref: percentile(quiet, .99), target: ratioAtMost(3)},
		row{what: "longest", unit: "us", ours: slices.Max(loud), ref: slices.Max(quiet), target: none},
		row{what: "connections that they open", unit: "1/s", ours: opened, ref: missing, target: none},
		row{what: "processor of podnotify for them", unit: "% of a core", ours: spent, ref: missing, target: none})
	return nil
}
