package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/http"
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

// soon is how long anything may take to come about.
const soon = 60 * time.Second

// process is one that was started here.
type process struct {
	*exec.Cmd
	log *bytes.Buffer
}

// priority is the nice value of everything that is timed: other work of the machine then
// waits, and the ratio is about the programs. A real-time priority would be sharper, but
// two threads of a Go program that wait for each other by spinning can then hold up a
// small machine for ever.
var priority = flag.Int("nice", -15, "the nice `VALUE` of what is timed, where that is permitted; 0 leaves others of the machine alone")

var mayPrioritize = sync.OnceValue(func() bool {
	if *priority == 0 {
		return false
	}
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- setPriority(*priority) == nil
	}()
	return <-done
})

// setPriority is about this thread.
func setPriority(nice int) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }

// launch starts a command, with priority if that is permitted: a child inherits that of
// the thread which forks it.
func launch(c *exec.Cmd, prioritized bool) error {
	if !prioritized || !mayPrioritize() {
		return c.Start()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := setPriority(*priority); err != nil {
			done <- err
			return
		}
		err := c.Start()
		done <- errors.Join(err, setPriority(0))
		runtime.UnlockOSThread()
	}()
	return <-done
}

// start starts a program of ours, or any other by its path.
func (b *bench) start(prioritized bool, args ...string) (*process, error) {
	p := &process{Cmd: exec.Command(b.path(args[0]), args[1:]...), log: &bytes.Buffer{}}
	p.Stderr = p.log
	p.WaitDelay = time.Second // its children may have its standard error, too
	if err := launch(p.Cmd, prioritized); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", args[0], err)
	}
	return p, nil
}

func (b *bench) path(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return filepath.Join(b.bin, name)
}

// stop ends a process and waits for it.
func (p *process) stop() {
	_ = p.Process.Signal(unix.SIGTERM)
	hurry := time.AfterFunc(3*time.Second, func() { _ = p.Process.Kill() })
	defer hurry.Stop()
	_ = p.Wait()
}

// kill ends a process that need not end well.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// output runs a program to its end and returns what it prints. It prints that to a file: a
// pipe would wake us at each line, beside what is measured next.
func (b *bench) output(prioritized bool, args ...string) (string, error) {
	out, err := os.CreateTemp(b.dir, "out")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	c := exec.Command(b.path(args[0]), args[1:]...)
	var complaint bytes.Buffer
	c.Stdout, c.Stderr = out, &complaint
	if err := launch(c, prioritized); err != nil {
		return "", fmt.Errorf("cannot start %s: %w", args[0], err)
	}
	hurry := time.AfterFunc(5*soon, func() { _ = c.Process.Kill() })
	defer hurry.Stop()
	failed := c.Wait()
	text, err := os.ReadFile(out.Name())
	if failed != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), failed, complaint.String())
	}
	return string(text), err
}

// numbers is output of a program that prints numbers, one row a line.
func (b *bench) numbers(prioritized bool, args ...string) ([][]float64, error) {
	text, err := b.output(prioritized, args...)
	if err != nil {
		return nil, err
	}
	var rows [][]float64
	for line := range strings.Lines(text) {
		var row []float64
		for _, word := range strings.Fields(line) {
			n, err := strconv.ParseFloat(word, 64)
			if err != nil {
				return nil, fmt.Errorf("%s printed %q", args[0], line)
			}
			row = append(row, n)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// column is one of the numbers of every row.
func column(rows [][]float64, i int) []float64 {
	var out []float64
	for _, r := range rows {
		out = append(out, r[i])
	}
	return out
}

// wait waits until a condition is true.
func wait(what string, ok func() bool) error {
	for end := time.Now().Add(soon); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("cannot see %s within %v", what, soon)
		}
	}
	return nil
}

func exists(path string) func() bool {
	return func() bool {
		_, err := os.Lstat(path)
		return err == nil
	}
}

// probe asks for a page and returns the code, 0 for none.
func probe(port int, path string) int {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get("http://127.0.0.1:" + strconv.Itoa(port) + path)
	if err != nil {
		return 0
	}
	r.Body.Close()
	return r.StatusCode
}

// cpu is the processor time a process has used, exactly.
func cpu(pid int) time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &t) != nil { // CPUCLOCK_SCHED of a process
		return 0
	}
	return time.Duration(t.Nano())
}

// use is what a process weighs at a moment.
type use struct {
	cpu      time.Duration
	switches int // voluntary, of all threads that live
	threads  int
	rss      int // KiB, like all that follow
	pss      int
	anon     int
}

// weigh looks at processes, all taken together.
func weigh(pids ...int) use {
	var u use
	for _, pid := range pids {
		u.cpu += cpu(pid)
		dir := "/proc/" + strconv.Itoa(pid)
		tasks, _ := filepath.Glob(dir + "/task/*/status")
		u.threads += len(tasks)
		for _, t := range tasks {
			u.switches += field(t, "voluntary_ctxt_switches:")
		}
		u.rss += field(dir+"/smaps_rollup", "Rss:")
		u.pss += field(dir+"/smaps_rollup", "Pss:")
		u.anon += field(dir+"/smaps_rollup", "Anonymous:")
	}
	return u
}

// field is the first number of a line in a file of /proc.
func field(file, name string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				n, _ := strconv.Atoi(words[0])
				return n
			}
		}
	}
	return 0
}

// sidecar starts a podnotify for one service, by flags, and waits until it serves.
// wrap comes before it on the command line.
func (b *bench) sidecar(wrap []string, flags ...string) (p *process, port int, socket string, err error) {
	b.port++
	port = b.port
	dir := filepath.Join(b.dir, strconv.Itoa(port))
	socket = filepath.Join(dir, "x", "notify")
	args := append(wrap, b.path("podnotify"), "sidecar", "--run-dir", dir, "--listen", "127.0.0.1:"+strconv.Itoa(port), "--service", "x")
	p, err = b.start(true, append(args, flags...)...)
	if err != nil {
		return nil, 0, "", err
	}
	err = wait("a sidecar that serves", func() bool { return probe(port, "/healthz") == 200 })
	if err != nil {
		p.kill()
		err = fmt.Errorf("%w: %s", err, p.log)
	}
	return p, port, socket, err
}

// configured starts a sidecar with a configuration file and waits until it serves.
func (b *bench) configured(name, text string, port int) (*process, error) {
	file := filepath.Join(b.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p, err := b.start(true, "podnotify", "sidecar", "--config", file)
	if err != nil {
		return nil, err
	}
	if err := wait("a sidecar that serves", func() bool { return probe(port, "/healthz") == 200 }); err != nil {
		p.kill()
		return nil, fmt.Errorf("%w: %s", err, p.log)
	}
	return p, nil
}
