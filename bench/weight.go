package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// memory: what a thousand probes leave behind.
func memory(b *bench) error {
	n := strconv.Itoa(b.of(1000, 20))
	measure := func(start func() (*process, int, error)) func() ([]float64, error) {
		return func() ([]float64, error) {
			p, port, err := start()
			if err != nil {
				return nil, err
			}
			defer p.kill()
			if _, err := b.numbers(false, "ready", "get", strconv.Itoa(port), "/readyz", "-", n); err != nil {
				return nil, err
			}
			return []float64{float64(weigh(p.Process.Pid).anon) / 1000}, nil
		}
	}
	ours := measure(func() (*process, int, error) {
		p, port, socket, err := b.sidecar(nil, "--expect", "notify", "--select-process", "/speaker ")
		if err == nil {
			_, err = b.speaker(socket, "x", port)
		}
		return p, port, err
	})
	ref := measure(func() (*process, int, error) {
		p, err := b.bareServer()
		return p, barePort, err
	})
	a, r, err := turns(b.of(5, 1), ours, ref)
	if err != nil {
		return err
	}
	b.table.add("Memory", row{what: "anonymous, after 1000 probes over new connections", unit: "MB", ours: median(a) * 1.024, ref: median(r) * 1.024, target: atMost(3), note: "reference: bare net/http"})
	return nil
}

// speaker starts a daemon that says READY=1 and waits until that is known.
func (b *bench) speaker(socket, name string, port int) (*process, error) {
	p, err := b.start(false, "speaker", socket, name)
	if err != nil {
		return nil, err
	}
	return p, wait("a daemon that is ready", func() bool { return probe(port, "/readyz") == 200 })
}

// until waits for a name to appear in a directory, without looking again and again.
func until(dir, name string, begin func() error) (time.Duration, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := begin(); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(soon/time.Millisecond)); n == 0 {
			return 0, fmt.Errorf("cannot see %s/%s within %v", dir, name, soon)
		} else if err != nil && err != unix.EINTR {
			return 0, err
		}
		if _, err := unix.Read(fd, buf); err != nil {
			return 0, err
		}
		if exists(filepath.Join(dir, name))() {
			return time.Since(start), nil
		}
	}
}

// startup: from exec to a socket that is bound.
func startup(b *bench) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	dir := filepath.Join(b.dir, "start")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	socket := filepath.Join(dir, "notify")
	bound := func(args ...string) ([]float64, error) {
		defer os.Remove(socket)
		var p *process
		took, err := until(dir, "notify", func() (err error) {
			p, err = b.start(true, args...)
			return err
		})
		if p != nil {
			p.kill()
		}
		return []float64{float64(took.Microseconds()) / 1000}, err
	}
	ours := func() ([]float64, error) {
		b.port++
		return bound("podnotify", "sidecar", "--run-dir", filepath.Join(b.dir, strconv.Itoa(b.port)), "--listen", "127.0.0.1:"+strconv.Itoa(b.port),
			"--service", "x", "--notify-address", socket, "--select-process", "/nothing ")
	}
	ref := func() ([]float64, error) { return bound("recv", socket) }
	a, r, err := turns(b.of(60, 2), ours, ref)
	if err != nil {
		return err
	}
	b.table.add("Start", row{what: "exec to the notify socket bound, p50", unit: "ms", ours: median(a), ref: median(r), target: atMost(6), note: "reference: C recvmsg loop"},
		row{what: "p99", unit: "ms", ours: percentile(a, .99), ref: percentile(r, .99), target: none})
	return b.peerStarts()
}

// lifetime runs a command to its end, n times, and returns ms of wall and of processor time.
func (b *bench) lifetime(n int, args ...string) (wall, spent []float64, err error) {
	for range n {
		c := exec.Command(b.path(args[0]), args[1:]...)
		begin := time.Now()
		if err := launch(c, true); err != nil {
			return nil, nil, err
		}
		if err := c.Wait(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
		wall = append(wall, float64(time.Since(begin).Microseconds())/1000)
		spent = append(spent, float64((c.ProcessState.UserTime()+c.ProcessState.SystemTime()).Microseconds())/1000)
	}
	return wall, spent, nil
}

// healthcheck: an exec probe as a process.
func healthcheck(b *bench) error {
	p, port, socket, err := b.sidecar(nil, "--expect", "notify", "--select-process", "/speaker ")
	if err != nil {
		return err
	}
	defer p.stop()
	s, err := b.speaker(socket, "x", port)
	if err != nil {
		return err
	}
	defer s.kill()
	address := "127.0.0.1:" + strconv.Itoa(port)
	var wall, refWall []float64
	run := func(walls *[]float64, args ...string) func() ([]float64, error) {
		return func() ([]float64, error) {
			w, c, err := b.lifetime(b.of(20, 2), args...)
			*walls = append(*walls, w...)
			return c, err
		}
	}
	what := "podnotify-healthcheck"
	ours := []string{what, "ready", "--address", "http://" + address}
	if !exists(b.path(what))() {
		what = "podnotify healthcheck (there is no podnotify-healthcheck yet)"
		ours = []string{"podnotify", "healthcheck", "ready", "--address", "http://" + address}
	}
	a, r, err := turns(b.of(48, 1), run(&wall, ours...), run(&refWall, "dial", address))
	if err != nil {
		return err
	}
	b.table.add("Exec probe", row{what: what + ", processor time, p50", unit: "ms", ours: median(a), ref: median(r), target: ratioAtMost(1.1), note: "reference: Go, net.Dial by hand"},
		row{what: "wall time, p50", unit: "ms", ours: median(wall), ref: median(refWall), target: none})
	return nil
}

// processes: a new process among many, when nobody has been new for long.
func processes(b *bench) error {
	grid := [][]string{{"processes", "seen and continued, p50 ms", "longest ms", "processor while waiting, % of a core", "anonymous MB"}}
	var all []float64
	most := 0.0
	for _, n := range []int{10, 100, 1000} {
		if b.short && n > 10 {
			break
		}
		var crowd []*process
		leave := func() {
			for _, p := range crowd {
				p.kill()
			}
		}
		for range n {
			p, err := b.start(false, "/bin/sleep", "100000")
			if err != nil {
				leave()
				return err
			}
			crowd = append(crowd, p)
		}
		ms, share, anon, err := b.discover()
		leave()
		if err != nil {
			return err
		}
		grid = append(grid, []string{strconv.Itoa(n), figure(median(ms)), figure(percentile(ms, 1)), figure(share), figure(anon)})
		all, most = append(all, ms...), max(most, share)
	}
	g := b.table.add("Processes in the namespace")
	g.grid = grid
	b.table.add("A new process among 10, 100, 1000", row{what: "seen and continued, p90", unit: "ms", ours: percentile(all, .9), ref: missing, target: atMost(5)},
		row{what: "processor while waiting, the most", unit: "% of a core", ours: most, ref: missing, target: atMost(1)})
	return nil
}

// discover has one sidecar wait for long, for several daemons, and then starts these, one
// after the other.
func (b *bench) discover() (ms []float64, share, anon float64, err error) {
	n := b.of(10, 1)
	b.port++
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nrun-dir: %s\nservices:\n", b.port, filepath.Join(b.dir, strconv.Itoa(b.port)))
	for i := range n {
		text += fmt.Sprintf("  - {name: s%d, expect: stop, select: {process: \"/stopper [0-9]+ s%d stay$\"}}\n", i, i)
	}
	p, err := b.configured("crowd.yaml", text, b.port)
	if err != nil {
		return nil, 0, 0, err
	}
	defer p.stop()
	if !b.short {
		time.Sleep(11 * time.Second)
	}
	share = b.share(p, b.of(3, 1), 11*time.Second) // a thousand processes are looked at every 10 s
	anon = float64(weigh(p.Process.Pid).anon) * 1.024 / 1000
	for i := range n {
		d, took, err := b.stays("s" + strconv.Itoa(i))
		if err != nil {
			return nil, 0, 0, err
		}
		defer d.kill()
		ms = append(ms, took)
		time.Sleep(37 * time.Millisecond)
	}
	return ms, share, anon, nil
}

// stays starts a daemon that stops itself and then lives on: its service waits no more.
// It returns after how many ms it ran again.
func (b *bench) stays(name string) (*process, float64, error) {
	p := &process{Cmd: exec.Command(b.path("stopper"), "0", name, "stay"), log: &bytes.Buffer{}}
	p.Stderr = p.log
	out, err := p.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := launch(p.Cmd, true); err != nil {
		return nil, 0, err
	}
	hurry := time.AfterFunc(soon, func() { _ = p.Process.Kill() })
	defer hurry.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	ns, bad := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if err != nil || bad != nil {
		p.kill()
		return nil, 0, fmt.Errorf("cannot see %s run again within %v", name, soon)
	}
	return p, ns / 1e6, nil
}

// services: many daemons beside one podnotify.
func services(b *bench) error {
	grid := [][]string{{"services", "start to all ready, ms", "processor for that, ms", "anonymous MB", "KiB for each more", "READY to 200 p50, us", "p99", "processor at rest, ms a minute"}}
	var base, each float64
	var lat, ref []float64
	for _, n := range []int{1, 10, 100, 1000} {
		if b.short && n > 10 {
			break
		}
		pairs := 1
		if n == 1000 {
			pairs = b.of(3, 1) // for the ratio, see ready
		}
		var all []costs
		for range pairs {
			c, err := b.many(n)
			if err != nil {
				return fmt.Errorf("%d services: %w", n, err)
			}
			all = append(all, c)
		}
		of := func(f func(costs) float64) float64 {
			var values []float64
			for _, c := range all {
				values = append(values, f(c))
			}
			return median(values)
		}
		anon := of(func(c costs) float64 { return c.anon })
		if n == 1 {
			base = anon
		} else {
			each = (anon - base) / float64(n-1)
		}
		lat, ref = nil, nil
		for _, c := range all {
			lat, ref = append(lat, c.lat...), append(ref, c.ref...)
		}
		grid = append(grid, []string{strconv.Itoa(n), figure(of(func(c costs) float64 { return c.took })), figure(of(func(c costs) float64 { return c.spent })),
			figure(anon * 1.024 / 1000), figure(each), figure(median(lat)), figure(percentile(lat, .99)), figure(of(func(c costs) float64 { return c.rest }))})
	}
	g := b.table.add("Services in one process")
	g.grid = grid
	b.table.add("A thousand services", row{what: "anonymous memory for each", unit: "KiB", ours: each, ref: missing, target: atMost(40)},
		row{what: "READY to 200, p50", unit: "us", ours: median(lat), ref: median(ref), target: ratioAtMost(1.1), note: "reference: the same with one service, in turns"})
	return nil
}

// herd is a sidecar of many services.
type herd struct {
	*process
	port int
	dir  string
}

func (b *bench) herd(file string, n int) (herd, error) {
	b.port++
	h := herd{port: b.port, dir: filepath.Join(b.dir, strconv.Itoa(b.port))}
	var text strings.Builder
	fmt.Fprintf(&text, "listen: \"127.0.0.1:%d\"\nrun-dir: %s\nservices:\n", h.port, h.dir)
	fmt.Fprintf(&text, "  - {name: s0, expect: notify, select: {process: \"/ready flip %d \"}, policy: {reloading: not-ready}}\n", h.port)
	for i := 1; i < n; i++ {
		fmt.Fprintf(&text, "  - {name: s%d, expect: notify, select: {process: \"/speaker .* s%d$\"}}\n", i, i)
	}
	var err error
	h.process, err = b.configured(file, text.String(), h.port)
	return h, err
}

// flips has the first of the services become ready again and again, so often that finding
// out who the daemon is, in the first tenth of a second, hardly counts.
func (b *bench) flips(h herd) func() ([]float64, error) {
	return func() ([]float64, error) {
		rows, err := b.numbers(true, "ready", "flip", strconv.Itoa(h.port), "/readyz/s0", filepath.Join(h.dir, "s0", "notify"), strconv.Itoa(b.of(250, 5)))
		return scaled(column(rows, 0), 1000), err
	}
}

// costs is what a sidecar of many services took.
type costs struct {
	took, spent float64   // ms until all are ready
	anon        float64   // KiB
	rest        float64   // ms a minute of processor time, while one service waits
	lat, ref    []float64 // us from READY to 200, and of one service in turns
}

// many measures one sidecar of n services.
func (b *bench) many(n int) (costs, error) {
	single, err := b.herd("one.yaml", 1)
	if err != nil {
		return costs{}, err
	}
	defer single.stop()
	p, err := b.herd("many.yaml", n)
	if err != nil {
		return costs{}, err
	}
	defer p.stop()
	pid, dir := p.Process.Pid, p.dir
	begin, before := time.Now(), cpu(pid)
	var all []*process
	defer func() {
		for _, s := range all {
			s.kill()
		}
	}()
	var starting sync.WaitGroup
	var mu sync.Mutex
	for i := 1; i < n; i++ {
		s, err := b.start(false, "speaker", filepath.Join(dir, "s"+strconv.Itoa(i), "notify"), "s"+strconv.Itoa(i))
		if err != nil {
			return costs{}, err
		}
		mu.Lock()
		all = append(all, s)
		mu.Unlock()
	}
	starting.Wait()
	for i := 1; i < n; i++ {
		if err := wait("service s"+strconv.Itoa(i), func() bool { return probe(p.port, "/readyz/s"+strconv.Itoa(i)) == 200 }); err != nil {
			return costs{}, fmt.Errorf("%w: %s", err, tail(p.log.String(), 5))
		}
	}
	c := costs{took: float64(time.Since(begin).Milliseconds()), spent: float64((cpu(pid) - before).Milliseconds())}
	time.Sleep(time.Duration(b.of(1500, 0)) * time.Millisecond) // both have given back the memory of their start
	if c.lat, c.ref, err = turns(b.of(4, 1), b.flips(p), b.flips(single)); err != nil {
		return costs{}, err
	}
	time.Sleep(time.Duration(b.of(3000, 10)) * time.Millisecond)
	before, begin = cpu(pid), time.Now()
	time.Sleep(time.Duration(b.of(5000, 10)) * time.Millisecond)
	c.rest = float64(cpu(pid)-before) / float64(time.Since(begin)) * 60000
	c.anon = float64(weigh(pid).anon)
	return c, nil
}

// tail is the last lines of a text.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
