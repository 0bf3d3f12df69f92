// Package compose runs the examples for docker compose as their readers do: on a
// real engine, with a real docker-compose and Debian's unchanged redis in an
// image that is called as the official one.
//
// The docker-compose is Debian's (1.29), or the one that
// PODNOTIFY_TEST_COMPOSE names: see make test-compose-v2.
package compose

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/test/e2e/docker"
	"github.com/podnotify/podnotify/test/e2e/image"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

// bound is how long anything may take before a test gives up. It is no measure
// of speed: the machine may be busy with other work.
const bound = 2 * time.Minute

func TestMain(m *testing.M) {
	machine.Main()
	os.Exit(m.Run())
}

// top is the top of the source tree.
func top(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// makeImage builds the image of podnotify as its users do, and returns the
// archive for this machine.
func makeImage(t *testing.T, dist string) string {
	t.Helper()
	cmd := exec.Command("make", "-s", "-C", top(t), "image", "DIST="+dist, "VERSION=test", "REVISION=0123", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot make the image: %v\n%s", err, out)
	}
	return filepath.Join(dist, "podnotify-image-"+runtime.GOARCH+".tar")
}

// makeRedis makes an image that stands in for the official one: its redis is
// Debian's, unchanged, too. Like that it has a shell, a user 999 and a /data.
func makeRedis(t *testing.T, archive string) {
	t.Helper()
	for _, program := range []string{"redis-server", "redis-cli"} {
		machine.Need(t, program, "redis-server")
	}
	i := image.Image{
		Name: "redis:8", Cmd: []string{"redis-server"}, WorkingDir: "/data",
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
	}
	for _, program := range []string{"redis-server", "redis-cli", "sh", "sleep"} {
		i.Program(program)
	}
	i.Dir("/data", 0o1777)
	i.Dir("/tmp", 0o1777)
	if err := i.Write(archive); err != nil {
		t.Fatal(err)
	}
}

// engine is a dockerd that has both images.
func engine(t *testing.T) (*docker.Engine, *machine.Machine) {
	t.Helper()
	m := machine.New(t)
	e := docker.Start(t, m)
	redis := filepath.Join(m.Dir, "redis.tar")
	makeRedis(t, redis)
	for _, archive := range []string{makeImage(t, filepath.Join(m.Dir, "dist")), redis} {
		e.Output(t, "load", "--input", archive)
	}
	e.Output(t, "tag", "podnotify/podnotify:test", "podnotify/podnotify")
	return e, m
}

// project is one example that was brought up.
type project struct {
	*docker.Engine
	t     *testing.T
	m     *machine.Machine
	flags []string
	name  string
}

// up brings up an example, changed by the YAML of override, if there is any. It
// is taken down with the test.
func up(t *testing.T, e *docker.Engine, m *machine.Machine, example, override string) *project {
	t.Helper()
	p := &project{Engine: e, t: t, m: m, name: "pn" + strings.ToLower(strings.ReplaceAll(filepath.Base(t.Name()), "_", ""))}
	p.flags = []string{"-p", p.name, "-f", filepath.Join(top(t), "examples/compose", example, "compose.yaml")}
	if override != "" {
		file := filepath.Join(t.TempDir(), "override.yaml")
		if err := os.WriteFile(file, []byte(override), 0o644); err != nil {
			t.Fatal(err)
		}
		p.flags = append(p.flags, "-f", file)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := p.compose("logs", "--no-color")
			t.Logf("%s (%v)", out, err)
		}
		if _, err := p.compose("down", "-v", "-t", "5"); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.compose("up", "-d"); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *project) compose(args ...string) (string, error) {
	program := os.Getenv("PODNOTIFY_TEST_COMPOSE")
	if program == "" {
		program = machine.Need(p.t, "docker-compose", "docker-compose")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, _, err := p.Run(ctx, program, append(slices.Clone(p.flags), args...)...)
	return out, err
}

// container is that of a service.
func (p *project) container(service string) docker.Container {
	p.t.Helper()
	label := "label=com.docker.compose."
	id := p.Output(p.t, "ps", "-aq", "--filter", label+"project="+p.name, "--filter", label+"service="+service)
	if id == "" || strings.Contains(id, "\n") {
		p.t.Fatalf("%s has not one container: %q", service, id)
	}
	return p.Inspect(p.t, id)
}

// is waits until a service's container has a state or health.
func (p *project) is(service, want string) docker.Container {
	p.t.Helper()
	var c docker.Container
	eventually(p.t, func() error {
		if c = p.container(service); c.Health() != want && c.State.Status != want {
			return fmt.Errorf("%s is %s %s, not %s", service, c.State.Status, c.Health(), want)
		}
		return nil
	})
	return c
}

// answers waits until podnotify gives an answer that begins with want.
func (p *project) answers(path, want string) {
	p.t.Helper()
	eventually(p.t, func() error {
		if code, body := p.get(path); !strings.HasPrefix(body, want) {
			return fmt.Errorf("%s is %d %q, not %q", path, code, body, want)
		}
		return nil
	})
}

func (p *project) get(path string) (code int, body string) {
	r, err := p.m.HTTP().Get("http://127.0.0.1:19119" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(b)
}

// readySince is when the daemon became ready, the first process that was one.
func (p *project) readySince() time.Time {
	p.t.Helper()
	var s struct {
		Phase    string
		Since    time.Time
		Respawns int
	}
	code, body := p.get("/statusz/redis")
	if err := json.Unmarshal([]byte(body), &s); code != 200 || err != nil || s.Phase != "ready" || s.Respawns != 0 {
		p.t.Fatalf("%v: %d %s", err, code, body)
	}
	return s.Since
}

// signal signals a container's first process as one who is no docker would: its
// restart policy holds.
func (p *project) signal(c docker.Container, signal string) {
	p.t.Helper()
	p.m.Output(p.t, "kill", "-s", signal, fmt.Sprint(c.State.Pid))
}

// clean is a stop that nobody had to be killed for, and nothing that is left.
func (p *project) clean(services ...string) {
	p.t.Helper()
	eventually(p.t, p.noZombies)
	if _, err := p.compose("stop"); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range services {
		if c := p.container(s); c.State.Status != "exited" || c.State.ExitCode != 0 || c.State.OOMKilled {
			p.t.Errorf("%s is %+v; want exited with 0", s, c.State)
		}
	}
	if _, err := p.compose("down", "-v"); err != nil {
		p.t.Fatal(err)
	}
	filter := "label=com.docker.compose.project=" + p.name
	for _, what := range []string{"container", "volume", "network"} {
		args := []string{what, "ls", "-q", "--filter", filter}
		if what == "container" {
			args = append(args, "-a")
		}
		if left := p.Output(p.t, args...); left != "" {
			p.t.Errorf("%s left: %s", what, left)
		}
	}
}

// noZombies looks at all processes of the machine.
func (p *project) noZombies() error {
	out := p.m.Output(p.t, "ps", "-eo", "stat=,pid=,ppid=,comm=")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Z") {
			return errors.New("a zombie: " + line)
		}
	}
	return nil
}

// eventually waits until f has nothing to complain about.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	for end := time.Now().Add(bound); ; time.Sleep(50 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %v", bound, err)
		}
	}
}

// sayer is a daemon in shell: it has no words of its own, so podnotify send
// speaks for it.
const sayer = `
services:
  redis:
    command:
      - sh
      - -c
      - |
        say() { /podnotify/podnotify send "$$@"; }
        trap 'say --stopping; while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 0' TERM
        say --ready
        while :; do sleep 0.1; done
`

func TestCompose(t *testing.T) {
	e, m := engine(t)

	t.Run("Image", func(t *testing.T) { testImage(t, e) })
	t.Run("Dockerfile", func(t *testing.T) { testDockerfile(t, e) })

	t.Run("Sidecar", func(t *testing.T) {
		p := up(t, e, m, "sidecar", "")
		p.is("podnotify", "healthy")
		redis := p.is("redis", "healthy")
		app := p.is("app", "exited")
		if out, err := p.compose("logs", "--no-color", "app"); err != nil || !strings.Contains(out, "PONG") || app.State.ExitCode != 0 {
			t.Errorf("the app ended with %d: %v %s", app.State.ExitCode, err, out)
		}
		p.answers("/readyz/redis", "ok")
		if _, body := p.get("/statusz/redis"); !strings.Contains(body, `"signalPermitted":true`) {
			t.Errorf("podnotify may not signal redis: %s", body)
		}

		p.signal(redis, "STOP")
		p.is("redis", "unhealthy")
		p.answers("/readyz/redis", "paused: ")
		p.signal(redis, "CONT")
		p.is("redis", "healthy")

		// Orphans of the daemon's container are reaped by ns.
		p.Output(t, "exec", redis.ID, "sh", "-c", `i=0; while [ $i -lt 20 ]; do (sh -c "sleep 0.01" &); i=$((i+1)); done`)
		eventually(t, p.noZombies)

		// podnotify's own end is not the daemon's, and forgets nothing.
		before := p.container("podnotify")
		p.signal(before, "KILL")
		eventually(t, func() error {
			if c := p.container("podnotify"); c.State.Pid == before.State.Pid || c.Health() != "healthy" {
				return fmt.Errorf("podnotify was not started again: %+v", c.State)
			}
			return nil
		})
		p.is("redis", "healthy")
		if now := p.container("redis"); now.State.Pid != redis.State.Pid || now.State.Status != "running" {
			t.Errorf("redis is %+v, was %+v", now.State, redis.State)
		}
		if _, body := p.get("/statusz/redis"); !strings.Contains(body, `"adopted":true`) {
			t.Errorf("podnotify has not adopted redis: %s", body)
		}
		p.clean("ns", "podnotify", "install", "redis", "app")
	})

	// A reboot: docker starts what was running, and knows no depends_on.
	t.Run("Order", func(t *testing.T) {
		p := up(t, e, m, "sidecar", "")
		p.is("redis", "healthy")
		ids := map[string]string{}
		for _, s := range []string{"ns", "podnotify", "redis"} {
			ids[s] = p.container(s).ID
		}
		p.Output(t, "stop", ids["redis"], ids["podnotify"])
		p.Output(t, "start", ids["redis"])
		first := p.is("redis", "running")
		p.Output(t, "start", ids["podnotify"])
		eventually(t, func() error {
			if _, body := p.get("/readyz/redis"); !strings.Contains(body, "not known whether it is ready: it ran before podnotify listened") {
				return fmt.Errorf("podnotify says %q", body)
			}
			return nil
		})
		p.is("redis", "healthy")
		p.answers("/readyz/redis", "ok")
		if now := p.container("redis"); now.State.Pid == first.State.Pid {
			t.Error("redis was not started again: this shows nothing")
		}

		// With the namespace's first process all of them end.
		p.signal(p.container("ns"), "KILL")
		eventually(t, func() error {
			if now := p.container("ns"); now.State.Status != "running" || now.RestartCount == 0 {
				return fmt.Errorf("ns is %+v", now.State)
			}
			return nil
		})
		p.is("redis", "healthy")
		p.answers("/readyz/redis", "ok")
	})

	t.Run("Run", func(t *testing.T) {
		p := up(t, e, m, "run", "")
		redis := p.is("redis", "healthy")
		app := p.is("app", "exited")
		if out, err := p.compose("logs", "--no-color", "app"); err != nil || !strings.Contains(out, "PONG") || app.State.ExitCode != 0 {
			t.Errorf("the app ended with %d: %v %s", app.State.ExitCode, err, out)
		}
		p.answers("/readyz/redis", "ok")
		p.Output(t, "exec", redis.ID, "/podnotify/podnotify", "kill", "--signal", "STOP")
		p.is("redis", "unhealthy")
		p.answers("/readyz/redis", "paused: ")
		p.Output(t, "exec", redis.ID, "/podnotify/podnotify", "kill", "--signal", "CONT")
		p.is("redis", "healthy")
		p.clean("install", "redis", "app")
	})

	// The client starts after the daemon is ready, however long that takes.
	for _, example := range []string{"sidecar", "run"} {
		t.Run("Slow_"+example, func(t *testing.T) {
			p := up(t, e, m, example, `
services:
  redis:
    command: [sh, -c, "sleep 5; exec redis-server --supervised systemd --protected-mode no"]
`)
			redis, app, ready := p.container("redis"), p.container("app"), p.readySince()
			if late := ready.Sub(redis.State.StartedAt); late < 5*time.Second {
				t.Errorf("redis was ready after %v: this shows nothing", late)
			}
			if app.State.StartedAt.Before(ready) {
				t.Errorf("the app was started at %v, redis was ready at %v", app.State.StartedAt, ready)
			}
		})
		t.Run("Stopping_"+example, func(t *testing.T) {
			p := up(t, e, m, example, sayer)
			redis := p.is("redis", "healthy")
			p.Output(t, "kill", "--signal", "TERM", redis.ID)
			p.is("redis", "unhealthy")
			p.answers("/readyz/redis", "stopping: ")
			p.Output(t, "exec", redis.ID, "sh", "-c", ": > /tmp/end")
			if c := p.is("redis", "exited"); c.State.ExitCode != 0 {
				t.Errorf("it ended with %d", c.State.ExitCode)
			}
		})
	}
}

// testImage starts the image in the most confined way there is.
func testImage(t *testing.T, e *docker.Engine) {
	confined := []string{"run", "--detach", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"}
	sidecar := []string{"podnotify/podnotify", "sidecar", "--service", "x"}
	for name, mount := range map[string][]string{
		"tmpfs":             {"--tmpfs", "/run/podnotify:size=1m"},
		"volume":            {"--volume", "/run/podnotify"},
		"volume, other uid": {"--volume", "/run/podnotify", "--user", "1234:1234"},
	} {
		id := e.Output(t, slices.Concat(confined, mount, sidecar)...)
		if out, err := e.Docker(t.Context(), "exec", id, "/podnotify-healthcheck", "bound", "--wait", "1m"); err != nil || out != "ok\n" {
			t.Errorf("%s: %q, %v", name, out, err)
		}
		if c := e.Inspect(t, id); len(mount) == 2 && c.Config.User != "65532:65532" {
			t.Errorf("%s: the user is %q", name, c.Config.User)
		}
		e.Output(t, "stop", id)
		if c := e.Inspect(t, id); c.State.ExitCode != 0 {
			t.Errorf("%s: it ended with %d", name, c.State.ExitCode)
		}
		e.Output(t, "rm", "--volumes", id)
	}
	// Nothing to write to: said in a line.
	id := e.Output(t, slices.Concat(confined, sidecar)...)
	if code := e.Output(t, "wait", id); code != "1" {
		t.Errorf("without a mount: code %s", code)
	}
	if out := e.Logs(t, id); !strings.Contains(out, "cannot use run-dir /run/podnotify: read-only file system; name a directory") {
		t.Errorf("without a mount: %s", out)
	}
	e.Output(t, "rm", id)
}

// testDockerfile compares the image of the Dockerfile with that of make image.
func testDockerfile(t *testing.T, e *docker.Engine) {
	context := t.TempDir()
	if err := os.MkdirAll(filepath.Join(context, "cmd/podnotify"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Dockerfile", ".dockerignore", "LICENSE", "cmd/podnotify/THIRD_PARTY"} {
		b, err := os.ReadFile(filepath.Join(top(t), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(context, name), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("make", "-s", "-C", top(t), "build", "BIN="+filepath.Join(context, "bin")).CombinedOutput(); err != nil {
		t.Fatalf("cannot build: %v\n%s", err, out)
	}
	e.Output(t, "build", "--quiet", "--tag", "built", "--build-arg", "VERSION=test", "--build-arg", "REVISION=0123", context)
	describe := func(name string) string {
		id := e.Output(t, "create", name)
		defer e.Output(t, "rm", id)
		var b strings.Builder
		config := e.Inspect(t, id).Config
		delete(config.Labels, "org.opencontainers.image.created")
		config.Env = slices.DeleteFunc(config.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") })
		fmt.Fprintf(&b, "%+v\n", config)
		archive := tar.NewReader(strings.NewReader(e.Output(t, "export", id)))
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				return b.String()
			}
			if err != nil {
				t.Fatal(err)
			}
			switch first, _, _ := strings.Cut(h.Name, "/"); first {
			case "dev", "etc", "proc", "sys", ".dockerenv": // docker's own
			default:
				fmt.Fprintf(&b, "%s %d:%d %s\n", h.FileInfo().Mode(), h.Uid, h.Gid, h.Name)
			}
		}
	}
	built, made := describe("built"), describe("podnotify/podnotify")
	if built != made || !strings.Contains(made, "podnotify-healthcheck") {
		t.Errorf("the Dockerfile makes\n%s\nmake image makes\n%s", built, made)
	}
}
