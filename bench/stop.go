package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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
		out, _ := b.output(true, "podnotify", "run", "--run-dir", dir, "--listen", "127.0.0.1:"+strconv.Itoa(b.port),
			"--service", "x", "--expect", "stop", "--respawn-mode", "exec", "--respawn-when", "always", "--respawn-limit", strconv.Itoa(n),
			"--respawn-interval", "1h", "--respawn-delay", "1ms", "--respawn-max-delay", "1ms", "--log-level", "error", "--", b.path("stopper"), "10") // ends with the limit, which is an error
		var all []float64
		for _, w := range strings.Fields(out) {
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
	// The longer a processor rests, the longer it takes to wake: both sides wait as long,
	// and a parent that is new is compared with one that is.
	refOne := func() ([]float64, error) {
		var all []float64
		for range n {
			rows, err := b.numbers(true, "parent", "1", b.path("stopper"), "30")
			if err != nil {
				return nil, err
			}
			all = append(all, column(rows, 0)...)
		}
		return scaled(all, 1000), nil
	}
	refAgain := func(parent string) func() ([]float64, error) {
		return func() ([]float64, error) {
			rows, err := b.numbers(true, parent, strconv.Itoa(n), b.path("stopper"), "10")
			return scaled(column(rows, 0), 1000), err
		}
	}
	// A parent in C that has done the same a moment ago is as fast as the kernel; what the
	// runtime of Go takes to come back from it is shown beside.
	for _, w := range []struct {
		what string
		ours func() ([]float64, error)
		ref  func() ([]float64, error)
		goal goal
		note string
	}{
		{"run, the daemon's first start, p50", one, refOne, ratioAtMost(2), "reference: C parent, waitid and SIGCONT"},
		{"run, a respawn, p50", again, refAgain("parent"), none, "reference: C parent, waitid and SIGCONT"},
		{"run, a respawn, beside a parent in Go, p50", again, refAgain("goparent"), none, "reference: the same parent in Go"},
	} {
		a, r, err := turns(b.of(4, 1), w.ours, w.ref)
		if err != nil {
			return err
		}
		b.table.add(titleStop,
			row{what: w.what, unit: "us", ours: median(a), ref: median(r), target: w.goal, note: w.note},
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
	time.Sleep(time.Second)
	early := b.share(p, 1, 7*time.Second)
	late := missing
	if !b.short {
		time.Sleep(3 * time.Second)
		late = b.share(p, 4, 4*time.Second)
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
		poller, err := b.start(true, "poller", "1000", strconv.Itoa(c.Process.Pid))
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
	poll, err := b.pollerShare("1000")
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
	if poll, err = b.pollerShare(latePace); err != nil {
		return err
	}
	return b.stopLate(late, poll)
}

// latePace is how often the reference looks later, in us.
const latePace = "4800"

// pollerShare is what the reference costs while nothing happens.
func (b *bench) pollerShare(pace string) (float64, error) {
	idle, err := b.start(true, "sleep")
	if err != nil {
		return 0, err
	}
	defer idle.kill()
	poller, err := b.start(true, "poller", pace, strconv.Itoa(idle.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer poller.kill()
	return b.share(poller, b.of(4, 1), 2*time.Second), nil
}

// share is what a process costs while it waits, in per cent of a core: the median of so many
// windows of time, for the host is busy with others in some. Each must be long enough for
// whatever the process does again and again, or the median does not see it.
func (b *bench) share(p *process, windows int, window time.Duration) float64 {
	if b.short {
		window = 100 * time.Millisecond
	}
	all := make([]float64, windows)
	for i := range all {
		before, begin := cpu(p.Process.Pid), time.Now()
		time.Sleep(window)
		all[i] = 100 * float64(cpu(p.Process.Pid)-before) / float64(time.Since(begin))
	}
	return median(all)
}

// stopLate: stops that come long after the start, one a service, and what is left of the
// cost when all are captured.
func (b *bench) stopLate(late, poll float64) error {
	const n, rounds = 60, 2
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
	// One after the other, so that hardly two stop between two looks.
	stops := func(first int, watch func(pids []string) error) (ms []float64, err error) {
		out := make([]strings.Builder, n)
		all := make([]*exec.Cmd, n)
		pids := make([]string, n)
		for i := range n {
			all[i] = exec.Command(b.path("stopper"), strconv.Itoa(first+i*53), "s"+strconv.Itoa(i))
			all[i].Stdout = &out[i]
			if err := launch(all[i], true); err != nil {
				return nil, err
			}
			pids[i] = strconv.Itoa(all[i].Process.Pid)
		}
		if err := watch(pids); err != nil {
			return nil, err
		}
		for i, c := range all {
			if err := c.Wait(); err != nil {
				return nil, err
			}
			f, err := strconv.ParseFloat(strings.TrimSpace(out[i].String()), 64)
			if err != nil {
				return nil, err
			}
			ms = append(ms, f/1e6)
		}
		return ms, nil
	}
	var all, ref []float64
	for range rounds {
		ms, err := stops(11000, func([]string) error { return nil })
		if err != nil {
			p.stop()
			return err
		}
		all = append(all, ms...)
	}
	p.stop() // or it would continue the reference's
	for range rounds {
		var poller *process
		ms, err := stops(1000, func(pids []string) (err error) {
			poller, err = b.start(true, append([]string{"poller", latePace}, pids...)...)
			return err
		})
		if poller != nil {
			poller.kill()
		}
		if err != nil {
			return err
		}
		ref = append(ref, ms...)
	}
	b.table.add(titleStop,
		row{what: "sidecar, later, p50", unit: "ms", ours: median(all), ref: median(ref), target: none, note: "reference: C, looks every 4.8 ms"},
		row{what: "p99", unit: "ms", ours: percentile(all, .99), ref: percentile(ref, .99), target: atMost(10)},
		row{what: "longest", unit: "ms", ours: percentile(all, 1), ref: percentile(ref, 1), target: none},
		row{what: "processor while waiting, later", unit: "% of a core", ours: late, ref: poll, target: atMost(1)})
	return nil
}
