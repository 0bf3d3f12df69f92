package stopwatch

import (
	"fmt"
	"io"
	"os"
	ossignal "os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"golang.org/x/sys/unix"
)

// parent has children of all kinds, waits for them and says what it is told. It
// is a process of its own because a Waiter reaps every child there is.
func parent() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	var gate io.Writer // leaf's standard input
	report := func(tr Transition) {
		news := fmt.Sprintf("%v %v", tr.Who, tr.Kind)
		if tr.Seen != Waited || tr.At.IsZero() {
			news += fmt.Sprintf(" %v %v", tr.Seen, tr.At)
		}
		if tr.Signal != 0 {
			news += " by " + unix.SignalName(tr.Signal)
		}
		if tr.Exit != nil {
			news += fmt.Sprintf(", %v", *tr.Exit)
		}
		os.Stdout.WriteString(news + "\n") // at once: the children write there, too
		if tr.Kind == Stopped {
			h, err := proc.Proc.OpenID(tr.Who)
			if err != nil {
				panic(err)
			}
			if err := h.Signal(unix.SIGCONT); err != nil {
				panic(err)
			}
			h.Close()
		}
		if tr.Kind == Continued { // which the next stop would overtake
			gate.Write([]byte{'\n'})
		}
	}
	w := NewWaiter(proc.Proc, report)
	if err := w.Run(); err != nil {
		panic(err)
	}
	fmt.Println("no children yet")

	for _, what := range []string{"launcher", "sit"} {
		cmd := command(what)
		if what == "launcher" {
			cmd.Stdout = os.Stdout // for leaf
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			panic(err)
		}
		defer in.Close()
		if what == "launcher" {
			gate = in
		}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println(what, id(cmd.Process.Pid))
		if what == "sit" {
			h, err := proc.Proc.Open(cmd.Process.Pid)
			if err != nil {
				panic(err)
			}
			if err := h.Signal(unix.SIGKILL); err != nil {
				panic(err)
			}
			h.Close()
		}
	}
	if err := w.Run(); err != nil {
		panic(err)
	}
	fmt.Println("no children left")
	io.Copy(io.Discard, os.Stdin)
}

// id is who a process is.
func id(pid int) proc.ID {
	s, err := proc.Proc.Stat(pid)
	if err != nil {
		panic(err)
	}
	return s.ID()
}

// launcher starts a leaf and leaves it alone.
func launcher() {
	cmd := command("leaf")
	cmd.Env = append(cmd.Env, "LAUNCHER="+itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	// In a group of its own, whose parent is in another: in an orphaned group the
	// kernel ignores SIGTSTP.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	os.Exit(5)
}

// leaf waits to be adopted, stops itself twice, and exits.
func leaf() {
	me := os.Getpid()
	for itoa(os.Getppid()) == os.Getenv("LAUNCHER") {
		time.Sleep(time.Millisecond)
	}
	os.Stdout.WriteString(fmt.Sprintln("leaf", id(me)))
	for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGTSTP} {
		raise(sig)
		os.Stdin.Read(make([]byte, 1))
	}
	os.Exit(7)
}

func TestWaiter(t *testing.T) {
	_, lines := launch(t, "parent")
	if line := next(t, lines); line != "no children yet" {
		t.Fatalf("it said %q", line)
	}
	who := make(map[string]string)    // role to id
	said := make(map[string][]string) // id to news, in order
	for {
		line := next(t, lines)
		if line == "no children left" {
			break
		}
		var word, rest string
		if n, err := fmt.Sscanf(line, "%s %s", &word, &rest); n != 2 || err != nil {
			t.Fatalf("it said %q", line)
		}
		if word[0] >= '0' && word[0] <= '9' {
			said[word] = append(said[word], line[len(word)+1:])
		} else {
			who[word] = rest
		}
	}
	for role, want := range map[string]string{
		"launcher": "[ended, exited 5]",
		"sit":      "[ended, killed by SIGKILL]",
		"leaf":     "[stopped by SIGSTOP continued stopped by SIGTSTP continued ended, exited 7]",
	} {
		if got := fmt.Sprint(said[who[role]]); got != want || who[role] == "" {
			t.Errorf("%s %s: %s, want %s", role, who[role], got, want)
		}
	}
	if len(said) != 3 {
		t.Errorf("it said %v", said)
	}
}

// unbothered has a child stop, go on and end, and says which of that a signal told of.
func unbothered() {
	told := make(chan os.Signal, 16)
	ossignal.Notify(told, unix.SIGCHLD, unix.SIGWINCH)
	// The kernel has sent SIGCHLD by the time that waitid tells. Of two signals two threads can
	// be told in any order, so one that has to come is waited for.
	now := func(due bool) (list []os.Signal) {
		unix.Kill(os.Getpid(), unix.SIGWINCH)
		for winched := false; !winched || due && len(list) == 0; {
			if sig := <-told; sig == unix.SIGWINCH {
				winched = true
			} else {
				list = append(list, sig)
			}
		}
		return list
	}
	w := NewWaiter(proc.Proc, func(tr Transition) {
		os.Stdout.WriteString(fmt.Sprintln(tr.Kind, now(tr.Kind == Ended)))
		h, err := proc.Proc.OpenID(tr.Who)
		if err != nil {
			return // it has ended
		}
		defer h.Close()
		switch tr.Kind {
		case Stopped:
			h.Signal(unix.SIGCONT)
		case Continued:
			h.Signal(unix.SIGKILL)
		}
	})
	cmd := command("raise")
	in, err := cmd.StdinPipe() // or it ends by itself
	if err != nil {
		panic(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	if err := w.Run(); err != nil {
		panic(err)
	}
	io.Copy(io.Discard, os.Stdin)
}

// TestUnsignalled: of stops waitid tells, and no signal: it would wake another thread.
func TestUnsignalled(t *testing.T) {
	_, lines := launch(t, "unbothered")
	for _, want := range []string{"stopped []", "continued []", "ended [child exited]"} {
		if line := next(t, lines); line != want {
			t.Errorf("it said %q, want %q", line, want)
		}
	}
}

func TestWords(t *testing.T) {
	for word, v := range map[string]fmt.Stringer{
		"stopped": Stopped, "continued": Continued, "ended": Ended, "sampled": Sampled, "waited": Waited,
	} {
		if v.String() != word {
			t.Errorf("%s is called %s", word, v)
		}
	}
	if Kind(0).String() != "unknown" || Source(0).String() != "unknown" {
		t.Error("nothing has a name")
	}
}
