package proc

import (
	"errors"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestFilesOfAChild(t *testing.T) {
	for _, what := range []string{"sit", "headless"} {
		t.Run(what, func(t *testing.T) { filesOf(t, start(t, what)) })
	}
}

func filesOf(t *testing.T, c *child) {

	s, err := Proc.Stat(c.pid)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID != c.pid || s.PPID != os.Getpid() || s.Start == 0 || s.Threads < 1 || s.Kernel() || s.State.Dead() || s.Ending() {
		t.Errorf("Stat = %+v", s)
	}
	if !Proc.Environ(c.pid, role) || Proc.Environ(c.pid, "NO_SUCH_NAME") {
		t.Error("Environ does not tell")
	}
	ours, err := Proc.Container(os.Getpid())
	if theirs, e := Proc.Container(c.pid); err != nil || e != nil || theirs != ours {
		t.Errorf("Container = %+v, %v; want %+v, %v", theirs, e, ours, err)
	}
	line, err := Proc.Cmdline(c.pid)
	if err != nil || line != c.Args[0] {
		t.Errorf("Cmdline = %q, %v; want %q", line, err, c.Args[0])
	}
	program, err := Proc.Exe(c.pid)
	if want, _ := os.Executable(); err != nil || program != want {
		t.Errorf("Exe = %q, %v; want %q", program, err, want)
	}
	real, effective, saved, err := Proc.Uids(c.pid)
	if uid := uint32(os.Getuid()); err != nil || real != uid || effective != uid || saved != uid {
		t.Errorf("Uids = %d %d %d, %v", real, effective, saved, err)
	}
	inner, err := Proc.NSpid(c.pid)
	if err != nil || inner[0] != c.pid {
		t.Errorf("NSpid = %v, %v", inner, err)
	}
	pids, err := Proc.Pids()
	if err != nil || !slices.Contains(pids, c.pid) || !slices.IsSorted(pids) {
		t.Errorf("Pids = %v, %v", pids, err)
	}
	table, err := Proc.Table()
	if err != nil || table[c.pid].ID() != s.ID() {
		t.Errorf("Table has %v, %v; want %v", table[c.pid], err, s)
	}
	if !table.Descends(c.pid, os.Getpid()) || table.Descends(os.Getpid(), c.pid) {
		t.Error("the table does not know whose child it is")
	}
	if up := table.Ancestors(c.pid); len(up) == 0 || up[0] != os.Getpid() {
		t.Errorf("Ancestors = %v", up)
	}

	c.end()
	if _, err := Proc.Stat(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("Stat after the end = %v", err)
	}
	if _, err := Proc.Cmdline(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("Cmdline after the end = %v", err)
	}
	if _, err := Proc.NSpid(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("NSpid after the end = %v", err)
	}
	if _, err := Proc.Container(c.pid); !errors.Is(err, ErrGone) {
		t.Errorf("Container after the end = %v", err)
	}
}

func TestCmdlineJoinsArguments(t *testing.T) {
	c := start(t, "sit", func(cmd *exec.Cmd) { cmd.Args = []string{"a", "", "b c", strings.Repeat("x", 5000)} })
	line, err := Proc.Cmdline(c.pid)
	if err != nil || !strings.HasPrefix(line, "a  b c xxx") || len(line) != 4096 {
		t.Errorf("Cmdline = %d bytes %.20q, %v", len(line), line, err)
	}
}

func TestBootID(t *testing.T) {
	id, err := Proc.BootID()
	if err != nil || !regexp.MustCompile(`^[0-9a-f-]{36}$`).MatchString(id) {
		t.Errorf("BootID = %q, %v", id, err)
	}
}

func TestNewest(t *testing.T) {
	n, err := Proc.Newest()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	before, err := n.Read()
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, "sit")
	after, err := n.Read()
	if err != nil {
		t.Fatal(err)
	}
	// Others fork, too, and the numbers may wrap around.
	if after == before || after > before && (c.pid <= before || c.pid > after) {
		t.Errorf("the newest was %d, then %d was born, and the newest is %d", before, c.pid, after)
	}
	if a := testing.AllocsPerRun(100, func() { n.Read() }); a != 0 && !race {
		t.Errorf("Read allocates %v times", a)
	}
}

func TestNewestOfAnotherFile(t *testing.T) {
	n, err := fixture(t, map[string]string{"loadavg": "0.1 0.2 0.3 1/100 \n"}).Newest()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if v, err := n.Read(); err == nil {
		t.Errorf("Read = %d", v)
	}
}

func TestStatusOfOldAndOddKernels(t *testing.T) {
	f := fixture(t, map[string]string{
		"5/status": "Name:\tx\nUid:\t1\t2\t3\t4\nNStgid:\t5\t7\t1\n",
		"6/status": "Name:\tNStgid: 9\\n\nUid:\t0\t0\t0\t0\n",
		"7/status": "Name:\tx\nUid:\tx\t0\t0\t0\nNStgid:\tx\n",
		"8/status": "",
	})
	if p, err := f.NSpid(5); err != nil || !reflect.DeepEqual(p, []int{5, 7, 1}) {
		t.Errorf("NSpid = %v, %v", p, err)
	}
	if r, e, s, err := f.Uids(5); err != nil || r != 1 || e != 2 || s != 3 {
		t.Errorf("Uids = %d %d %d, %v", r, e, s, err)
	}
	if p, err := f.NSpid(6); err != nil || !reflect.DeepEqual(p, []int{6}) {
		t.Errorf("NSpid without the line = %v, %v", p, err)
	}
	if _, err := f.NSpid(7); err == nil {
		t.Error("NSpid took a word for a number")
	}
	for _, pid := range []int{7, 8} {
		if _, _, _, err := f.Uids(pid); err == nil {
			t.Errorf("Uids(%d) took rubbish", pid)
		}
	}
	if _, err := f.BootID(); err == nil {
		t.Error("BootID of no file")
	}
	if _, err := f.Newest(); err == nil {
		t.Error("Newest of no file")
	}
	if _, err := FS("/nowhere").Pids(); err == nil {
		t.Error("Pids of no directory")
	}
}

func TestIDString(t *testing.T) {
	if s := (ID{12, 3456}).String(); s != "12/3456" {
		t.Error(s)
	}
}
