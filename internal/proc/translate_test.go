package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// brood is the first process of a PID namespace. It has a child in it, and one that
// is the first of a namespace below.
func brood() {
	for _, below := range []bool{false, true} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), quick, role+"=sit")
		if below {
			alone(cmd)
		}
		if _, err := cmd.StdinPipe(); err != nil { // it ends with us
			panic(err)
		}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// question is what translator is asked: whom does process Of call N?
type question struct{ Of, N int }

// translator drops to another user and answers questions: a number, or 0 and why not.
func translator() {
	if err := syscall.Setresuid(65533, 65533, 65533); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stderr)
	for {
		var q question
		if in.Decode(&q) != nil {
			return
		}
		pid, why := translate(q)
		out.Encode([]string{strconv.Itoa(pid), why})
	}
}

func translate(q question) (int, string) {
	home, err := Proc.Home(q.Of)
	if err != nil {
		return 0, err.Error()
	}
	of, err := Proc.Open(q.Of)
	if err != nil {
		return 0, err.Error()
	}
	defer of.Close()
	h, err := Proc.Called(home, of, q.N, nil, nil)
	if err != nil {
		return 0, err.Error()
	}
	defer h.Close()
	return h.ID().PID, ""
}

// nest is the processes of a brood, by what they are called in every namespace.
func nest(t *testing.T) (first, child, below int) {
	t.Helper()
	first = start(t, "brood", alone).pid
	eventually(t, "the brood is complete", func() bool {
		child, below = 0, 0
		pids, err := Proc.Pids()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range pids {
			if st, err := Proc.Stat(pid); err != nil || st.PPID != first {
				continue
			}
			if names, _ := Proc.NSpid(pid); len(names) == 3 {
				below = pid
			} else if len(names) == 2 {
				child = pid
			}
		}
		return child != 0 && below != 0
	})
	return first, child, below
}

// TestCalled: a number means what it means where its speaker lives, whether the
// kernel may be asked (root) or not (another user).
func TestCalled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	first, child, below := nest(t)
	twin, _, _ := nest(t) // a namespace beside it, with the same numbers
	called := func(pid, depth int) int {
		names, err := Proc.NSpid(pid)
		if err != nil || len(names) < depth {
			t.Fatalf("process %d is called %v: %v", pid, names, err)
		}
		return names[depth-1]
	}

	thread := 0 // a number of a thread there
	tasks, _ := os.ReadDir(Proc.path(first, "task"))
	for _, task := range tasks {
		b, _ := os.ReadFile(Proc.path(first, "task/"+task.Name()+"/status"))
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[0] == "NSpid:" && f[len(f)-1] != "1" {
				thread, _ = strconv.Atoi(f[len(f)-1])
			}
		}
	}
	if thread == 0 {
		t.Fatal("the first process has no threads")
	}

	ours, theirs := io.Pipe()
	answers, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	cmd := exec.Command(exe(t))
	cmd.Env = append(os.Environ(), quick, role+"=translator")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait(); theirs.Close() }()
	out := json.NewDecoder(ours)

	for _, c := range []struct {
		what  string
		of, n int
		want  int
	}{
		{"1 of the first", first, 1, first},
		{"1 of its child", child, 1, first},
		{"the child of the first", first, called(child, 2), child},
		{"the child of itself", child, called(child, 2), child},
		{"the first below, seen from above", first, called(below, 2), below},
		{"1 below", below, 1, below},
		{"1 of the twin", twin, 1, twin},
		{"a thread of the first", first, thread, 0},
		{"nobody", first, 77777, 0},
		{"nobody below", below, called(child, 2) + 1000, 0},
	} {
		if got, why := translate(question{c.of, c.n}); got != c.want {
			t.Errorf("%s: root finds %d %s, want %d", c.what, got, why, c.want)
		}
		if err := json.NewEncoder(in).Encode(question{c.of, c.n}); err != nil {
			t.Fatal(err)
		}
		var answer []string
		if err := out.Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if answer[0] != strconv.Itoa(c.want) {
			t.Errorf("%s: another user finds %v, want %d", c.what, answer, c.want)
		}
	}
}

// TestCalledFromOutside: who was brought into a namespace has no ancestor there. What
// it calls a number is clear only where one namespace has it.
func TestCalledFromOutside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	if _, err := exec.LookPath("nsenter"); err != nil {
		t.Skip("no nsenter: apt-get install util-linux")
	}
	first, _, _ := nest(t)
	twin, _, _ := nest(t)
	var guest int
	self := exe(t)
	c := start(t, "sit", func(cmd *exec.Cmd) {
		cmd.Path, cmd.Err = "", nil
		path, _ := exec.LookPath("nsenter")
		cmd.Path, cmd.Args = path, []string{"nsenter", "-t", strconv.Itoa(first), "-p", self}
	})
	pids, _ := Proc.Pids()
	for _, pid := range pids {
		if st, err := Proc.Stat(pid); err == nil && st.PPID == c.pid {
			guest = pid
		}
	}
	home, err := Proc.Home(guest)
	if err != nil || len(home.Names) != 2 || home.Init != (ID{}) {
		t.Fatalf("the guest's home is %v, %v", home, err)
	}
	all := func(pid int) bool { return pid == first || pid == twin }
	if h, err := Proc.Called(home, nil, 1, all, nil); !errors.Is(err, ErrUnclear) {
		t.Errorf("of two processes 1 it takes %v, %v", h, err)
	}
	h, err := Proc.Called(home, nil, 1, func(pid int) bool { return pid == first }, nil)
	if err != nil || h.ID().PID != first {
		t.Fatalf("of one process 1 it takes %v, %v", h, err)
	}
	h.Close()
	of := open(t, guest) // and the kernel knows
	h, err = Proc.Called(home, of, 1, all, nil)
	if err != nil || h.ID().PID != first {
		t.Fatalf("the kernel says %v, %v", h, err)
	}
	h.Close()
}

// TestAnywhere: without a speaker, only what can mean one process means anybody.
func TestAnywhere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a PID namespace needs root")
	}
	first, child, below := nest(t)
	among := func(pids ...int) func(int) bool {
		return func(pid int) bool { return slices.Contains(pids, pid) }
	}
	if _, err := Proc.Anywhere(1, among(first, below), nil); !errors.Is(err, ErrUnclear) {
		t.Errorf("of two: %v", err)
	}
	if _, err := Proc.Anywhere(1, among(child), nil); !errors.Is(err, ErrGone) {
		t.Errorf("of none: %v", err)
	}
	h, err := Proc.Anywhere(1, among(first, child), nil)
	if err != nil || h.ID().PID != first {
		t.Fatalf("of one: %v, %v", h, err)
	}
	h.Close()
}
