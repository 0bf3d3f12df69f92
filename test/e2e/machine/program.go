package machine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Program is a daemon of the machine itself: a container runtime, a kubelet.
type Program struct {
	Name string

	machine *Machine
	argv    []string
	log     string
	cmd     *exec.Cmd
	ended   <-chan struct{}
}

// Run starts a program and waits until ready gives nil. When the test fails, the
// end of what the program wrote is shown.
func (m *Machine) Run(t testing.TB, name string, ready func(context.Context) error, argv ...string) *Program {
	t.Helper()
	p := &Program{Name: name, machine: m, argv: argv, log: filepath.Join(m.Dir, "log", name+".log")}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, p.Tail(30))
		}
	})
	p.Start(t, ready)
	return p
}

// Start starts the program again, after Stop.
func (p *Program) Start(t testing.TB, ready func(context.Context) error) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if p.ended, err = p.machine.Start(p.cmd); err != nil {
		t.Fatalf("cannot start %s: %v", p.Name, err)
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := ready(ctx)
		cancel()
		if err == nil {
			return
		}
		if p.Ended() {
			t.Fatalf("%s ended: %v\n%s", p.Name, p.cmd.ProcessState, p.Tail(30))
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v", p.Name, err)
		}
	}
}

// PID is its number outside of the machine.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Ended says whether it has, by itself or by Stop.
func (p *Program) Ended() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Signal sends it a signal.
func (p *Program) Signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// Stop sends it a signal and waits for its end. What a container runtime has
// started runs on, as on a node.
func (p *Program) Stop(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.ended
}

// Tail is the last lines of what it wrote.
func (p *Program) Tail(lines int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
