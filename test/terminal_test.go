package test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
)

// desk is a program on a terminal of its own, of which it is the session leader.
type desk struct {
	*process
	keys   *os.File
	screen text
}

func newDesk(t *testing.T, argv ...string) *desk {
	t.Helper()
	master, slave := terminal(t)
	d := &desk{process: &process{t: t, name: argv[0], ended: make(chan struct{})}, keys: master}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(os.Environ(), "PS1=$ ", "HISTFILE=", "TERM=dumb")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d.Process = cmd.Process
	go func() {
		_ = cmd.Wait()
		d.state = cmd.ProcessState
		close(d.ended)
	}()
	go func() {
		b := make([]byte, 4096)
		for {
			k, err := master.Read(b)
			_, _ = d.screen.Write(b[:k])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- screen\n%s", &d.screen)
		}
	})
	t.Cleanup(d.kill)
	d.endWithTest()
	return d
}

func (d *desk) types(keys string) {
	d.t.Helper()
	if _, err := d.keys.WriteString(keys); err != nil {
		d.t.Fatal(err)
	}
}

// shows waits for a text on the screen, so many times.
func (d *desk) shows(want string, times int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("the terminal shows %q %d times", want, times), func() bool {
		return strings.Count(d.screen.String(), want) >= times
	})
}

// echo is a daemon on a terminal: it says what it reads, and how it is interrupted.
const echo = `trap 'echo interrupted; exit 8' INT; echo "is up $$"; while read line; do echo "read $line"; done; sleep 1000`

// TestRunJob: to a shell, podnotify run and its daemon are one job: Ctrl-Z stops
// both, fg and bg continue both, and whoever is in the foreground has the terminal.
func TestRunJob(t *testing.T) {
	t.Parallel()
	bash := need(t, "bash", "bash")
	for name, around := range map[string]string{
		"alone":       "%s",
		"in a script": "sh -c '%s; exit $?'",
		"in a pipe":   "%s | cat",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := write(t, tempDir(t)+"/echo", echo)
			d := newDesk(t, bash, "--norc", "--noediting", "-i")
			d.types(fmt.Sprintf(around, fmt.Sprintf("%s run --listen %s --run-dir %s --log-level error --expect none -- sh %s",
				bin.podnotify, freePort(t), tempDir(t), script)) + "\n")
			d.shows("is up ", 1)
			_, after, _ := strings.Cut(d.screen.String(), "is up ")
			pid, err := strconv.Atoi(strings.TrimSpace(strings.SplitAfter(after, "\n")[0]))
			if err != nil {
				t.Fatal(err)
			}
			stopped := func() bool { st, err := proc.Proc.Stat(pid); return err == nil && st.State.Stopped() }
			d.types("one\n")
			d.shows("read one", 1)
			for i := 1; i <= 3; i++ {
				d.types("\x1a")
				eventually(t, "the daemon is stopped", stopped)
				d.types("echo prompt $((40+2))\n")
				d.shows("prompt 42", i)
				if i == 2 { // in the background it wants to read, and is stopped again
					before := len(d.screen.String())
					d.types("bg\n")
					eventually(t, "the job is stopped again", func() bool {
						d.types("\n")
						time.Sleep(50 * time.Millisecond)
						return strings.Contains(d.screen.String()[before:], "Stopped")
					})
				}
				d.types("fg\n")
				eventually(t, "the daemon runs", func() bool { return !stopped() })
				d.types("again\n")
				d.shows("read again", i)
			}
			d.types("\x03")
			d.shows("interrupted", 1)
			if name != "in a pipe" { // the shell does not tell any more
				d.types("echo code $?\n")
				d.shows("code 8", 1)
			}
			d.types("exit\n")
			d.exit()
		})
	}
}

// TestRunJobless: where no shell could continue podnotify, Ctrl-Z does nothing.
func TestRunJobless(t *testing.T) {
	t.Parallel()
	d := newDesk(t, bin.podnotify, "run", "--listen", freePort(t), "--run-dir", tempDir(t), "--log-level", "error", "--expect", "none", "--", "sh", "-c", echo)
	d.shows("is up ", 1)
	for i := 1; i <= 3; i++ {
		d.types("\x1a")
		d.types("again\n")
		d.shows("read again", i)
	}
	d.types("\x03")
	if code := d.exit(); code != 8 {
		t.Errorf("exit code %d, want the daemon's, 8", code)
	}
}
