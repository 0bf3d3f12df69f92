package machine_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

func TestMain(m *testing.M) {
	machine.Main()
	if dir := os.Getenv("MACHINE_TEST_VICTIM"); dir != "" {
		victim(dir)
	}
	if address := os.Getenv("MACHINE_TEST_SERVE"); address != "" {
		panic(http.ListenAndServe(address, nil))
	}
	os.Exit(m.Run())
}

func TestMachine(t *testing.T) {
	m := machine.New(t)
	out, _ := os.Readlink("/proc/self/ns/pid")
	if in := strings.TrimSpace(m.Output(t, "readlink", "/proc/self/ns/pid")); in == out || in == "" {
		t.Errorf("the machine has the PID namespace %q, as we have", in)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MACHINE_TEST_SERVE="+machine.Address+":8080")
	if _, err := m.Start(cmd); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r, err := m.HTTP().Get("http://" + machine.Address + ":8080/")
		if err == nil {
			r.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// victim makes a machine with a process and a cgroup, and waits to be killed.
func victim(dir string) {
	testing.Init()
	tests := []testing.InternalTest{{Name: "victim", F: func(t *testing.T) {
		m := machine.New(t)
		for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
			if os.MkdirAll(root+m.Cgroup+"/a/b", 0o755) == nil {
				break
			}
		}
		if _, err := m.Start(exec.Command("sleep", "1000.25")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ready"), []byte(m.Dir), 0o644); err != nil {
			t.Fatal(err)
		}
		select {}
	}}}
	testing.Main(func(string, string) (bool, error) { return true, nil }, tests, nil, nil)
}

// However the test ends, nothing stays.
func TestKilled(t *testing.T) {
	machine.NeedRoot(t)
	for _, signal := range []string{"KILL", "INT", "TERM"} {
		t.Run(signal, func(t *testing.T) {
			cmd, scratch := startVictim(t)
			if out, err := exec.Command("kill", "-"+signal, strconv.Itoa(cmd.Process.Pid)).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			_ = cmd.Wait()
			eventually(t, "directory, cgroup and processes are gone", func() bool { return left(scratch) == "" })
		})
	}
	t.Run("KILL, and the keeper too", func(t *testing.T) {
		cmd, scratch := startVictim(t)
		keeper := childOf(t, cmd.Process.Pid)
		for _, pid := range []int{keeper, cmd.Process.Pid} {
			if out, err := exec.Command("kill", "-KILL", strconv.Itoa(pid)).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
		}
		_ = cmd.Wait()
		machine.New(t) // removes what dead ones have left
		eventually(t, "directory, cgroup and processes are gone", func() bool { return left(scratch) == "" })
	})
}

// startVictim waits until it has made its machine.
func startVictim(t *testing.T) (cmd *exec.Cmd, scratch string) {
	t.Helper()
	dir := t.TempDir()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "MACHINE_TEST_VICTIM="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine is up", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "ready"))
		scratch = string(b)
		return scratch != ""
	})
	return cmd, scratch
}

// childOf is the only child that is another instance of this program.
func childOf(t *testing.T, parent int) int {
	t.Helper()
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	self, _ := os.Executable()
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(b)) {
			if exe, _ := os.Readlink("/proc/" + field + "/exe"); exe == self {
				pid, _ := strconv.Atoi(field)
				return pid
			}
		}
	}
	t.Fatal("the keeper is not there")
	return 0
}

// left says what there still is of a machine.
func left(dir string) string {
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		if groups, _ := filepath.Glob(pattern + filepath.Base(dir)); len(groups) > 0 {
			return groups[0]
		}
	}
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if b, err := os.ReadFile(line); err == nil && strings.Contains(string(b), "1000.25") {
			return string(b)
		}
	}
	return ""
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s: ", what)
		}
	}
}
