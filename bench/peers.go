package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// peer is a program that others use for a part of what podnotify does.
type peer struct {
	name  string
	start func() ([]int, func(), error) // the processes to weigh, and how to end them
}

// look finds a program of a Debian package, or says how to get it.
func look(program, debian string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("not here: apt-get install %s", debian)
	}
	return path, nil
}

// wrapper is a peer that starts sleep and waits for it.
func (b *bench) wrapper(program, debian string, args ...string) func() ([]int, func(), error) {
	return func() ([]int, func(), error) {
		path, err := look(program, debian)
		if err != nil {
			return nil, nil, err
		}
		p, err := b.start(false, append([]string{path}, args...)...)
		if err != nil {
			return nil, nil, err
		}
		return []int{p.Process.Pid}, p.stop, nil
	}
}

func (b *bench) allPeers() []peer {
	return []peer{
		{"a Go program that sleeps", func() ([]int, func(), error) { return b.plain("sleep") }},
		{"bare net/http", func() ([]int, func(), error) { return b.plain("nethttp", "127.0.0.1:19298") }},
		{"C recvmsg loop", func() ([]int, func(), error) { return b.plain("recv", filepath.Join(b.dir, "idle-recv")) }},
		{"tini", b.wrapper("tini", "tini", "-s", "--", "sleep", "100000")},
		{"dumb-init", b.wrapper("dumb-init", "dumb-init", "sleep", "100000")},
		{"s6-supervise", b.s6},
		{"conmon", b.conmon},
		{"systemd --user", b.systemd},
		{"supervisord", b.supervisord},
		{"canonical/pebble", b.pebble},
	}
}

func (b *bench) plain(args ...string) ([]int, func(), error) {
	p, err := b.start(false, args...)
	if err != nil {
		return nil, nil, err
	}
	return []int{p.Process.Pid}, p.kill, nil
}

func (b *bench) s6() ([]int, func(), error) {
	path, err := look("s6-supervise", "s6")
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(b.dir, "s6")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte("#!/bin/sh\nexec sleep 100000\n"), 0o755); err != nil {
		return nil, nil, err
	}
	return b.plain(path, dir)
}

// conmon wants a runtime: a script that starts sleep does.
func (b *bench) conmon() ([]int, func(), error) {
	path, err := look("conmon", "conmon")
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(b.dir, "conmon")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	runtime := filepath.Join(dir, "runtime")
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --pid-file ] && file=$2; shift; done\nsleep 100000 >/dev/null 2>&1 &\n[ -n \"$file\" ] && echo $! > \"$file\"\nexit 0\n"
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		return nil, nil, err
	}
	pidfile := filepath.Join(dir, "conmon.pid")
	out, err := exec.Command(path, "-c", "x", "-n", "x", "-u", "x", "-r", runtime, "-b", dir, "-p", filepath.Join(dir, "pid"),
		"-P", pidfile, "-l", "k8s-file:"+filepath.Join(dir, "log"), "--exit-dir", dir, "--socket-dir-path", dir).CombinedOutput()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s", err, tail(string(out), 1))
	}
	if err := wait("conmon", exists(pidfile)); err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(pidfile)
	if err != nil {
		return nil, nil, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return nil, nil, err
	}
	return []int{pid}, func() {}, nil // it ends with the namespace
}

func (b *bench) supervisord() ([]int, func(), error) {
	path, err := look("supervisord", "supervisor")
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(b.dir, "supervisord.conf")
	text := fmt.Sprintf("[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=%s/supervisord.pid\n[program:sleep]\ncommand=sleep 100000\n", b.dir)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, nil, err
	}
	return b.plain(path, "-c", file)
}

// pebbleVersion is what the Go proxy has.
const pebbleVersion = "v1.26.0"

// buildPebble installs canonical/pebble beside our programs.
func (b *bench) buildPebble() (string, error) {
	path := filepath.Join(b.bin, "pebble")
	if exists(path)() {
		return path, nil
	}
	// "go install module@version" asks for the list of its versions, too, which a proxy may not have.
	dir := filepath.Join(b.dir, "pebble-build")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	module := "module peer\n\ngo 1.26\n\nrequire github.com/canonical/pebble " + pebbleVersion + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(module), 0o644); err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/canonical/pebble/cmd/pebble")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build it: %s", tail(string(out), 1))
	}
	return path, nil
}

func (b *bench) startPebble(prioritized bool, port int) (*process, error) {
	path, err := b.buildPebble()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "pebble"+strconv.Itoa(port))
	if err := os.MkdirAll(filepath.Join(dir, "layers"), 0o755); err != nil {
		return nil, err
	}
	layer := "services:\n  sleep: {override: replace, command: sleep 100000, startup: enabled}\n"
	if err := os.WriteFile(filepath.Join(dir, "layers", "001-sleep.yaml"), []byte(layer), 0o644); err != nil {
		return nil, err
	}
	p := &process{Cmd: exec.Command(path, "run", "--http", "127.0.0.1:"+strconv.Itoa(port)), log: &bytes.Buffer{}}
	p.Env = append(os.Environ(), "PEBBLE="+dir)
	p.Stderr, p.WaitDelay = p.log, time.Second
	return p, launch(p.Cmd, prioritized)
}

func (b *bench) pebble() ([]int, func(), error) {
	b.port++
	p, err := b.startPebble(false, b.port)
	if err != nil {
		return nil, nil, err
	}
	if err := wait("pebble", func() bool { return probe(b.port, "/v1/health") == 200 }); err != nil {
		p.kill()
		return nil, nil, fmt.Errorf("%w: %s", err, tail(p.log.String(), 2))
	}
	return []int{p.Process.Pid}, p.stop, nil
}

// systemd starts a user manager, which listens as the system's does.
func (b *bench) systemd() ([]int, func(), error) {
	p, err := b.startSystemd()
	if err != nil {
		return nil, nil, err
	}
	return []int{p.Process.Pid}, p.kill, nil
}

func (b *bench) systemdDir() string { return filepath.Join(b.dir, "systemd") }

func (b *bench) startSystemd() (*process, error) {
	if !exists("/lib/systemd/systemd")() {
		return nil, fmt.Errorf("not here: apt-get install systemd")
	}
	dir := b.systemdDir()
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config", "systemd", "user")
	if err := os.MkdirAll(config, 0o755); err != nil {
		return nil, err
	}
	unit := "[Service]\nType=notify\nNotifyAccess=all\nTimeoutStartSec=infinity\nExecStart=" + b.path("flood") + " -r ${NOTIFY_SOCKET} %i\nStandardOutput=file:" + dir + "/out-%i\n"
	for name, text := range map[string]string{"flood@.service": unit, "default.target": "[Unit]\nDescription=Nothing\n"} {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	p := &process{Cmd: exec.Command("/lib/systemd/systemd", "--user", "--log-target=console"), log: &bytes.Buffer{}}
	p.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "HOME="+dir)
	p.Stderr, p.Stdout, p.WaitDelay = p.log, p.log, time.Second
	if err := launch(p.Cmd, true); err != nil {
		return nil, err
	}
	end := time.Now().Add(10 * time.Second)
	for !exists(filepath.Join(dir, "systemd", "private"))() {
		if time.Now().After(end) {
			p.kill()
			return nil, fmt.Errorf("it does not come up in a namespace like this: %s", tail(p.log.String(), 2))
		}
		time.Sleep(20 * time.Millisecond)
	}
	return p, nil
}

// systemdDatagrams: how many messages a user manager takes in a second.
func (b *bench) systemdDatagrams() row {
	r := row{what: "systemd --user, for comparison", unit: "1000/s", ours: missing, ref: missing, target: none}
	p, err := b.startSystemd()
	if err != nil {
		r.note = err.Error()
		return r
	}
	defer p.kill()
	const count = 20000
	before := cpu(p.Process.Pid)
	ctl := func(args ...string) error {
		c := exec.Command("systemctl", append([]string{"--user"}, args...)...)
		c.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+b.systemdDir())
		out, err := c.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, tail(string(out), 1))
		}
		return nil
	}
	unit := fmt.Sprintf("flood@%d.service", count)
	if err := ctl("start", "--no-block", unit); err != nil {
		r.note = err.Error()
		return r
	}
	out := filepath.Join(b.systemdDir(), fmt.Sprintf("out-%d", count))
	var ns float64
	if err := wait("its figure", func() bool {
		text, _ := os.ReadFile(out)
		ns, _ = strconv.ParseFloat(string(bytes.TrimSpace(text)), 64)
		return ns > 0
	}); err != nil {
		r.note = tail(p.log.String(), 2)
		return r
	}
	r.ref = count / ns * 1e6
	r.note = figure(float64((cpu(p.Process.Pid)-before).Microseconds())/count) + " us of processor time each"
	return r
}

// peerStarts: how long the peers take until they are there.
func (b *bench) peerStarts() error {
	n := b.of(20, 1)
	for _, w := range []struct {
		program, debian string
		args            []string
	}{
		{"tini", "tini", []string{"-s", "--", "/bin/true"}},
		{"dumb-init", "dumb-init", []string{"/bin/true"}},
	} {
		path, err := look(w.program, w.debian)
		if err != nil {
			b.table.add("Start", row{what: w.program, unit: "ms", ours: missing, ref: missing, target: none, note: err.Error()})
			continue
		}
		wall, _, err := b.lifetime(n, append([]string{path}, w.args...)...)
		if err != nil {
			return err
		}
		b.table.add("Start", row{what: w.program + " until true has ended, p50", unit: "ms", ours: missing, ref: median(wall), target: none})
	}
	if b.short {
		return nil
	}
	var all []float64
	for range n {
		b.port++
		begin := time.Now()
		p, err := b.startPebble(true, b.port)
		if err != nil {
			b.table.add("Start", row{what: "canonical/pebble", unit: "ms", ours: missing, ref: missing, target: none, note: err.Error()})
			return nil //nolint:nilerr // it is in the table
		}
		for probe(b.port, "/v1/health") != 200 {
			if time.Since(begin) > soon {
				p.kill()
				return fmt.Errorf("cannot see pebble start: %s", tail(p.log.String(), 3))
			}
			time.Sleep(200 * time.Microsecond)
		}
		all = append(all, float64(time.Since(begin).Microseconds())/1000)
		p.stop()
	}
	b.table.add("Start", row{what: "canonical/pebble until it answers /v1/health, p50", unit: "ms", ours: missing, ref: median(all), target: none})
	return nil
}

// idle: what everybody does while there is nothing to do, all at the same time.
func idle(b *bench) error {
	type one struct {
		name   string
		pids   []int
		before use
		mine   bool
	}
	var all []one
	var notes []string
	add := func(name string, mine bool, pids ...int) { all = append(all, one{name: name, pids: pids, mine: mine}) }

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
	add("podnotify sidecar, after READY=1", true, p.Process.Pid)

	q, port, _, err := b.sidecar(nil, "--expect", "stop", "--select-process", "/stopper ")
	if err != nil {
		return err
	}
	defer q.stop()
	d, err := b.start(false, "stopper", "50", "x", "stay")
	if err != nil {
		return err
	}
	defer d.kill()
	if err := wait("a stop that is captured", func() bool { return probe(port, "/readyz") == 200 }); err != nil {
		return err
	}
	add("podnotify sidecar, after a stop", true, q.Process.Pid)

	b.port++
	r, err := b.start(true, "podnotify", "run", "--run-dir", filepath.Join(b.dir, strconv.Itoa(b.port)), "--listen", "127.0.0.1:"+strconv.Itoa(b.port),
		"--service", "x", "--expect", "stop", "--", b.path("stopper"), "50", "x", "stay")
	if err != nil {
		return err
	}
	defer r.stop()
	if err := wait("a stop that is captured", func() bool { return probe(b.port, "/readyz") == 200 }); err != nil {
		return fmt.Errorf("%w: %s", err, r.log)
	}
	add("podnotify run, after a stop", true, r.Process.Pid)

	for _, peer := range b.allPeers() {
		if b.short && (peer.name == "canonical/pebble" || peer.name == "systemd --user") {
			continue // minutes to build; seconds to start
		}
		pids, end, err := peer.start()
		if err != nil {
			notes = append(notes, peer.name+": "+err.Error())
			continue
		}
		defer end()
		add(peer.name, false, pids...)
	}
	time.Sleep(time.Duration(b.of(12000, 500)) * time.Millisecond)
	for i := range all {
		all[i].before = weigh(all[i].pids...)
	}
	begin := time.Now()
	time.Sleep(time.Duration(b.of(60000, 500)) * time.Millisecond)
	minutes := time.Since(begin).Minutes()
	grid := [][]string{{"at rest", "voluntary switches a minute", "processor, ms a minute", "threads", "RSS KiB", "PSS KiB", "anonymous KiB"}}
	reference := missing
	for _, o := range all {
		now := weigh(o.pids...)
		switches := float64(now.switches-o.before.switches) / minutes
		spent := float64((now.cpu - o.before.cpu).Microseconds()) / 1000 / minutes
		if o.name == "a Go program that sleeps" {
			reference = switches
		}
		grid = append(grid, []string{o.name, figure(switches), figure(spent), strconv.Itoa(now.threads), strconv.Itoa(now.rss), strconv.Itoa(now.pss), strconv.Itoa(now.anon)})
		if o.mine {
			b.table.add("At rest", row{what: o.name, unit: "voluntary switches a minute", ours: switches, ref: missing, target: atMost(4), note: figure(spent) + " ms a minute"})
		}
	}
	for i := range b.table.groups {
		if b.table.groups[i].title == "At rest" {
			for j := range b.table.groups[i].rows {
				b.table.groups[i].rows[j].ref = reference
			}
		}
	}
	g := b.table.add("At rest, beside others")
	g.grid, g.text = grid, notes
	return nil
}
