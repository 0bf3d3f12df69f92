// Package docker runs Debian's dockerd in a machine of the tests (see
// test/e2e/machine): an engine of its own, whose containers, networks and
// volumes end with the machine.
package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

// Engine is a running dockerd.
type Engine struct {
	Host string // for DOCKER_HOST, the same inside the machine and outside

	machine *machine.Machine
}

// Start starts dockerd and waits until it answers.
func Start(t testing.TB, m *machine.Machine) *Engine {
	t.Helper()
	machine.Need(t, "dockerd", "docker.io")
	machine.Need(t, "docker", "docker.io")
	dir := filepath.Join(m.Dir, "docker")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Or it reads the one of this machine.
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	e := &Engine{Host: "unix://" + filepath.Join(dir, "docker.sock"), machine: m}
	log := &machine.Text{}
	cmd := exec.Command("dockerd", "--config-file", config, "--host", e.Host, "--pidfile", filepath.Join(dir, "pid"),
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--cgroup-parent", m.Cgroup,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--iptables=false", "--ip6tables=false", "--bip", "10.248.0.1/24")
	cmd.Stdout, cmd.Stderr = log, log
	ended, err := m.Start(cmd)
	if err != nil {
		t.Fatal("cannot start dockerd: ", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of dockerd's log:\n%s", tail(log.String(), 30))
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = e.Docker(context.Background(), "version"); err == nil {
			return e
		}
		select {
		case <-ended:
			t.Fatalf("dockerd ended: %v\n%s", cmd.ProcessState, tail(log.String(), 30))
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("dockerd does not answer: %v\n%s", err, tail(log.String(), 30))
		}
	}
}

// Run runs a client of the engine to its end, docker or compose, and gives what
// it wrote.
func (e *Engine) Run(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host, "DOCKER_CONFIG="+filepath.Join(e.machine.Dir, "docker"), "DOCKER_BUILDKIT=0")
	var out, errs machine.Text
	cmd.Stdout, cmd.Stderr = &out, &errs
	ended, err := e.machine.Start(cmd)
	if err != nil {
		return "", "", err
	}
	<-ended
	if !cmd.ProcessState.Success() {
		err = fmt.Errorf("%s %s: %v: %s", name, strings.Join(args, " "), cmd.ProcessState, strings.TrimSpace(errs.String()))
	}
	return out.String(), errs.String(), err
}

// Docker runs docker and gives what it wrote to standard output.
func (e *Engine) Docker(ctx context.Context, args ...string) (string, error) {
	out, _, err := e.Run(ctx, "docker", args...)
	return out, err
}

// Output is Docker where a failure is one of the test.
func (e *Engine) Output(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := e.Docker(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// Logs is what a container has written, both outputs in one.
func (e *Engine) Logs(t testing.TB, name string) string {
	t.Helper()
	out, errs, err := e.Run(t.Context(), "docker", "logs", name)
	if err != nil {
		t.Fatal(err)
	}
	return out + errs
}

// Container is what the tests ask of docker inspect.
type Container struct {
	ID    string `json:"Id"`
	Name  string
	State struct {
		Status     string
		Pid        int // as the machine counts
		ExitCode   int
		OOMKilled  bool
		StartedAt  time.Time
		FinishedAt time.Time
		Health     *struct {
			Status string
			Log    []struct {
				ExitCode int
				Output   string
			}
		}
	}
	RestartCount int
	Config       struct {
		User                 string
		Env, Entrypoint, Cmd []string
		Labels               map[string]string
	}
}

// Health is healthy, unhealthy, starting, or "" if the container has no check.
func (c Container) Health() string {
	if c.State.Health == nil {
		return ""
	}
	return c.State.Health.Status
}

// Inspect tells how a container is.
func (e *Engine) Inspect(t testing.TB, name string) Container {
	t.Helper()
	var c []Container
	if err := json.Unmarshal([]byte(e.Output(t, "container", "inspect", name)), &c); err != nil || len(c) != 1 {
		t.Fatalf("cannot read what docker inspect says of %s: %v", name, err)
	}
	return c[0]
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
