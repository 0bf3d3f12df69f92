package proc

import (
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for _, comm := range []string{"redis-server", "", "a b", ") (", ")", "((", ") R 1 (", "a\nb", "12 (x) Z 1 1"} {
		got, err := parseStat([]byte(line(42, comm, 'T', 17, 123456789)))
		want := Stat{PID: 42, PPID: 17, PGID: 7, Session: 8, State: 'T', Start: 123456789, Flags: 4194304, Faults: 1, Threads: 2, Comm: comm}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("comm %q: %+v, %v", comm, got, err)
		}
		if s, ok := parseState([]byte(line(42, comm, 't', 17, 1))); !ok || s != 't' || s.Stopped() {
			t.Errorf("comm %q: state %v %v", comm, s, ok)
		}
	}
	// A dead process has lost its group, its session and its terminal.
	s, err := parseStat([]byte("9 (x) X 0 -1 -1 0 -1 2097152 0 0 0 0 0 0 0 0 20 0 0 0 55 0 0\n"))
	if err != nil || s.PGID != -1 || s.Session != -1 || !s.State.Dead() || s.Start != 55 || !s.Kernel() {
		t.Errorf("dead: %+v, %v", s, err)
	}
	whole := line(42, "x", 'S', 1, 5)
	for _, bad := range []string{"", "x", "()", "42 x S 1", "x (x) S 1 1", "42 )x( S 1", whole[:30], whole[:45], "42 (x) S x " + whole[11:]} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v", bad, s)
		}
	}
	for _, bad := range []string{"", "42 (x", "42 (x)", "42 (x) "} {
		if s, ok := parseState([]byte(bad)); ok {
			t.Errorf("parseState(%q) = %v", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(line(1, "x", 'S', 0, 1)))
	f.Add([]byte("1 (()) R"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStat(b)
		state, ok := parseState(b)
		if err == nil && (!ok || s.State != state && b[len(b)-1] != 0) {
			// Field 3 is one letter after one space in both.
			if ok && b[indexState(b)] == ' ' {
				return // more spaces than the kernel writes
			}
			t.Errorf("%q: %v and %v %v", b, s.State, state, ok)
		}
	})
}

// indexState is where parseState looks.
func indexState(b []byte) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == ')' {
			return i + 2
		}
	}
	return 0
}

func TestTableOfAFixture(t *testing.T) {
	f := fixture(t, map[string]string{
		"1/stat":     line(1, "pause", 'S', 0, 10),
		"5/stat":     line(5, "sh", 'S', 0, 20),
		"7/stat":     line(7, "x) (y", 'S', 5, 30),
		"9/stat":     line(9, "a\nb", 'S', 7, 40),
		"11/stat":    line(11, "young parent's", 'S', 12, 50),
		"12/stat":    line(12, "reused", 'S', 9, 60),
		"13/stat":    line(13, "circle", 'S', 14, 70),
		"14/stat":    line(14, "circle", 'S', 13, 70),
		"15/cmdline": "its stat is gone",
		"16/stat":    line(16, "orphan", 'S', 99, 80),
		"uptime":     "",
		"self/stat":  "",
		"0/stat":     "",
	})
	table, err := f.Table()
	if err != nil {
		t.Fatal(err)
	}
	if len(table) != 9 {
		t.Errorf("%d processes: %v", len(table), table)
	}
	for _, c := range []struct {
		pid int
		up  []int
	}{
		{1, nil}, {5, nil}, {7, []int{5}}, {9, []int{7, 5}}, {12, []int{9, 7, 5}}, {11, nil}, {16, []int{99}}, {77, nil},
	} {
		if up := table.Ancestors(c.pid); !reflect.DeepEqual(up, c.up) {
			t.Errorf("Ancestors(%d) = %v, want %v", c.pid, up, c.up)
		}
		for of := range 100 {
			want := false
			for _, p := range c.up {
				want = want || p == of
			}
			if got := table.Descends(c.pid, of); got != want {
				t.Errorf("Descends(%d, %d) = %v", c.pid, of, got)
			}
		}
	}
	if up := table.Ancestors(13); len(up) > len(table) {
		t.Errorf("Ancestors goes in circles: %v", up)
	}
	if table.Descends(13, 13) || table.Descends(13, 5) {
		t.Error("Descends goes in circles")
	}

	broken := fixture(t, map[string]string{"5/stat": "rubbish"})
	if _, err := broken.Table(); !errors.Is(err, errStat) {
		t.Errorf("Table of rubbish: %v", err)
	}
}

func BenchmarkTable(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Proc.Table(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestExecFaults: whoever has called exec has had page faults since, also where nothing
// else in its stat tells.
func TestExecFaults(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", `read x; exec /bin/sh -c "read y"`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	pid := cmd.Process.Pid
	line := func(text string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			now, err := Proc.Cmdline(pid)
			st, _ := Proc.Stat(pid)
			if err == nil && strings.Contains(now, text) && st.State == 'S' {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("its command line is %q, want %q", now, text)
			}
		}
	}
	line("read x")
	before, err := Proc.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	line("sh -c read y")
	after, err := Proc.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	if before.Faults == 0 || after.Faults <= before.Faults || after.ID() != before.ID() || after.Comm != before.Comm {
		t.Errorf("before exec %+v, after it %+v", before, after)
	}
}
