// Package test drives the programs that are shipped, from outside: real
// daemons, real signals, real namespaces, and HTTP as a kubelet would ask.
package test

import (
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/testdaemon"
)

// bin is the programs under test, where any uid can run them.
var bin struct {
	dir         string
	podnotify   string // cmd/podnotify
	healthcheck string // cmd/podnotify-healthcheck
	mydaemon    string // examples/mydaemon/go
	self        string // this test binary, for testdaemon
	pause       string // the same, as process 1 of a pod: it is called so in real ones
}

func TestMain(m *testing.M) {
	if os.Getenv(aroundVariable) != "" { // before all else, which the program that it becomes may be
		fmt.Fprintln(os.Stderr, aroundMain())
		os.Exit(1)
	}
	testdaemon.Main()
	if os.Getenv(firstVariable) != "" {
		os.Exit(first())
	}
	if os.Getenv(puppetVariable) != "" {
		os.Exit(puppetMain())
	}
	if os.Getenv(clientVariable) != "" {
		os.Exit(clientMain())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if ossignal.Ignored(unix.SIGHUP) { // under nohup(1): daemons would inherit that, and never reload
		ossignal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	}
	dir, err := os.MkdirTemp("", "pnbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer sweep(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, "cannot build the programs to test:", err)
		return 1
	}
	return m.Run()
}

// sweep ends what is left of our programs: children of a podnotify that was
// killed outlive it, by design.
func sweep(dir string) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if at, err := os.Readlink(exe); err != nil || filepath.Dir(at) != dir {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe))); err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	bin.dir = dir
	bin.podnotify = filepath.Join(dir, "podnotify")
	bin.healthcheck = filepath.Join(dir, "podnotify-healthcheck")
	bin.mydaemon = filepath.Join(dir, "mydaemon")
	bin.self = filepath.Join(dir, "testdaemon")
	for out, pkg := range map[string]string{bin.podnotify: "../cmd/podnotify", bin.healthcheck: "../cmd/podnotify-healthcheck", bin.mydaemon: "../examples/mydaemon/go"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", pkg, err, b)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	bin.pause = filepath.Join(dir, "pause")
	if err := os.WriteFile(bin.self, b, 0o755); err != nil {
		return err
	}
	return os.Link(bin.self, bin.pause)
}
