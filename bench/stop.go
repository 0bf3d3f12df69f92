package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const titleStop = "raise(SIGSTOP) to running again"

// stopRun: podnotify as the parent, against a parent in C.
func stopRun(b *bench) error {
	n := b.of(40, 2)
	one := func() ([]float64, error) {
		var all []float64
		for range n {
			b.port++
			dir := filepath.Join(b.dir, strconv.Itoa(b.port))
			rows, err := b.numbers(true, "podnotify", "run", "--run-dir", dir, "--listen", "127.0.0.1:"+strconv.Itoa(b.port),
				"--service", "x", "--expect", "stop", "--log-level", "error", "--", b.path("stopper"), "30")
			if err != nil {
				return nil, err
			}
			all = append(all, column(rows, 0)...)
		}
		return scaled(all, 1000), nil
	}
	again := func() ([]float64, error) {
		b.port++
		dir := filepath.Join(b.dir, strconv.Itoa(b.port))
		c := exec.Command(b.path("podnotify"), "run", "--run-dir", dir, "--listen", "127.0.0.1:"+strconv.Itoa(b.port),
			"--service", "x", "--expect", "stop", "--respawn-mode", "exec", "--respawn-when", "always", "--respawn-limit", strconv.Itoa(n),
			"--respawn-interval", "1h", "--respawn-delay", "1ms", "--respawn-max-delay", "1ms", "--log-level", "error", "--", b.path("stopper"), "10")
		var out strings.Builder
		c.Stdout = &out
		if err := launch(c, true); err != nil {
			return nil, err
		}
		_ = c.Wait() // ends with the limit
		var all []float64
		for _, w := range strings.Fields(out.String()) {
			f, err := strconv.ParseFloat(w, 64)
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
		if len(all) < n {
			return nil, fmt.Errorf("cannot see %d stops: there were %d", n, len(all))
		}
		return scaled(all, 1000), nil
	}
	ref := func() ([]float64, error) {
		rows, err := b.numbers(true, "parent", strconv.Itoa(n), b.path("stopper"), "30")
		return scaled(column(rows, 0), 1000), err
	}
	for _, w := range []struct {
		what string
		ours func() ([]float64, error)
	}{
		{"run, the daemon's first start, p50", one},
		{"run, a respawn, p50", again},
	} {
		a, r, err := turns(b.of(4, 1), w.ours, ref)
		if err != nil {
			return err
		}
		b.table.add(titleStop,
			row{what: w.what, unit: "us", ours: median(a), ref: median(r), target: ratioAtMost(2), note: "reference: C parent, waitid and SIGCONT"},
			row{what: "p99", unit: "us", ours: percentile(a, .99), ref: percentile(r, .99), target: none})
	}
	return nil
}

// stopSidecar: podnotify beside the daemon, against a loop in C that looks every ms.
func stopSidecar(b *bench) error {
	p, _, _, err := b.sidecar(nil, "--expect", "stop", "--select-process", "/stopper ")
	if err != nil {
		return err
	}
	// What waiting costs, before anything else.
	spent := func(pid int, d time.Duration) (share float64) {
		before, begin := cpu(pid), time.Now()
		time.Sleep(d)
		return 100 * float64(cpu(pid)-before) / float64(time.Since(begin))
	}
	time.Sleep(time.Second)
	early := spent(p.Process.Pid, time.Duration(b.of(7000, 200))*time.Millisecond)
	late := missing
	if !b.short {
		time.Sleep(3 * time.Second)
		late = spent(p.Process.Pid, 10*time.Second)
	}
	ours := func() ([]float64, error) { // a stop soon after the start
		rows, err := b.numbers(true, "stopper", "20")
		return scaled(column(rows, 0), 1e6), err
	}
	ref := func() ([]float64, error) {
		c := exec.Command(b.path("stopper"), "20")
		var out strings.Builder
		c.Stdout = &out
		if err := launch(c, true); err != nil {
			return nil, err
		}
		poller, err := b.start(true, "poller", strconv.Itoa(c.Process.Pid))
		if err != nil {
			return nil, err
		}
		defer poller.kill()
		if err := c.Wait(); err != nil {
			return nil, err
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(out.String()), 64)
		return []float64{f / 1e6}, err
	}
	var a, r []float64
	for range b.of(300, 3) {
		x, err := ours()
		if err != nil {
			return err
		}
		a = append(a, x...)
	}
	p.stop() // or it would continue the reference's
	for range b.of(300, 3) {
		x, err := ref()
		if err != nil {
			return err
		}
		r = append(r, x...)
	}
	poll, err := b.pollerShare(spent)
	if err != nil {
		return err
	}
	b.table.add(titleStop,
		row{what: "sidecar, first 10 s of waiting, p50", unit: "ms", ours: median(a), ref: median(r), target: atMost(1.2), note: "reference: C, looks every ms"},
		row{what: "p99", unit: "ms", ours: percentile(a, .99), ref: percentile(r, .99), target: atMost(3)},
		row{what: "processor while waiting, first 10 s", unit: "% of a core", ours: early, ref: poll, target: atMost(3)})
	if b.short {
		return nil
	}
	return b.stopLate(late)
}

// pollerShare is what the reference costs while nothing happens.
func (b *bench) pollerShare(spent func(int, time.Duration) float64) (float64, error) {
	idle, err := b.start(true, "sleep")
	if err != nil {
		return 0, err
	}
	defer idle.kill()
	poller, err := b.start(true, "poller", strconv.Itoa(idle.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer poller.kill()
	return spent(poller.Process.Pid, time.Duration(b.of(5000, 100))*time.Millisecond), nil
}

// stopLate: stops that come long after the start, one a service, and what is left of the
// cost when all are captured.
func (b *bench) stopLate(late float64) error {
	const n = 60
	b.port++
	dir := filepath.Join(b.dir, strconv.Itoa(b.port))
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nrun-dir: %s\nservices:\n", b.port, dir)
	for i := range n {
		text += fmt.Sprintf("  - {name: s%d, expect: stop, select: {process: \"/stopper [0-9]+ s%d$\"}}\n", i, i)
	}
	p, err := b.configured("late.yaml", text, b.port)
	if err != nil {
		return err
	}
	defer p.stop()
	var mu sync.Mutex
	var all []float64
	var failed error
	var waiting sync.WaitGroup
	for i := range n {
		waiting.Go(func() {
			// Spread, so that hardly two stop between two looks.
			rows, err := b.numbers(true, "stopper", strconv.Itoa(11000+i*53), "s"+strconv.Itoa(i))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, scaled(column(rows, 0), 1e6)...)
			if err != nil {
				failed = err
			}
		})
	}
	waiting.Wait()
	if failed != nil {
		return failed
	}
	b.table.add(titleStop,
		row{what: "sidecar, later, p50", unit: "ms", ours: median(all), ref: missing, target: none},
		row{what: "longest", unit: "ms", ours: percentile(all, 1), ref: missing, target: atMost(10)},
		row{what: "processor while waiting, later", unit: "% of a core", ours: late, ref: missing, target: atMost(1)})
	return nil
}
