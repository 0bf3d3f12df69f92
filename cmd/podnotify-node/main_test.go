package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/ctrd"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// run runs a command line to its end.
func run(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	a := &app{&out, &err, nil}
	return a.run(args), out.String(), err.String()
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--lisen :1", 78, "did you mean --listen?"},
		{"serve --listen here", 78, `cannot use listen "here" (from --listen)`},
		{"serve --containerd sock", 78, `cannot use containerd "sock"`},
		{"serve --containerd=", 78, "there is nothing without containerd; name its socket"},
		{"serve --namespaces ,", 78, "names no namespace"},
		{"frob", 2, "it is no command of podnotify-node"},
		{"status --run-dir " + dir, 4, "is it running with this --run-dir?"},
		{"reload --run-dir " + dir + " x", 1, "is it running with this --run-dir?"},
		{"status -o xml", 2, "write text or json"},
		{"serve --run-dir " + dir + " --listen " + port.Addr().String(), 1, "choose another with --listen"},
		{"--version", 0, ""},
	} {
		code, stdout, stderr := run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("podnotify-node %s: code %d, %s%s", c.args, code, stdout, stderr)
		}
	}
	if _, out, _ := run("--help"); !strings.Contains(out, "serve") || !strings.Contains(out, "--containerd") {
		t.Errorf("--help says %s", out)
	}
	if _, out, _ := run("serve", "--help"); !strings.Contains(out, "NOTIFY_SOCKET") || !strings.Contains(out, "CAP_KILL") || !strings.Contains(out, "every interface") {
		t.Errorf("serve --help says %s", out)
	}
}

// TestNoContainerd: that it does not answer is said once for each reason, wherever
// people look, and is no reason to restart podnotify-node.
func TestNoContainerd(t *testing.T) {
	address := filepath.Join(t.TempDir(), "containerd.sock")
	var log bytes.Buffer
	client := &ctrd.Client{Address: address, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	node, err := sidecar.NewNode(proc.Proc, filepath.Join(t.TempDir(), "notify"), 0o666, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	state, err := journal.Open(t.TempDir(), proc.Proc, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	r := newRegistry(ctx, node, nil, state, client, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	r.swept = true

	// What a client says of a socket that is not there.
	told := make(chan error)
	watched := make(chan struct{})
	go func() { client.Watch(ctx, &unreachable{Handler: r, told: told}); close(watched) }()
	why := <-told
	cancel()
	<-watched
	r.Connected(false, why)
	r.Connected(false, why)
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), address) || !strings.Contains(log.String(), "no such file") {
		t.Errorf("%d warnings: %s", n, &log)
	}
	if !r.degraded()["containerd"] {
		t.Error("podnotify_degraded does not say so")
	}

	tenant, err := node.Add(sidecar.Config{Name: "x", Policy: lifecycle.DefaultPolicy(), Access: sidecar.AccessNone, KillSignal: unix.SIGTERM}, sidecar.Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := &container{Tenant: tenant, node: r}
	if w := c.Look().Facts.Warnings; len(w) != 1 || w[0] != why.Error() {
		t.Errorf("warnings are %q, not %q", w, why)
	}

	log.Reset()
	r.Connected(false, errors.New("another reason"))
	r.Connected(true, nil)
	r.Connected(false, errors.New("another reason"))
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	r.Connected(true, nil)
	if w := c.Look().Facts.Warnings; len(w) > 0 || r.degraded()["containerd"] {
		t.Errorf("warnings are %q after containerd came back", w)
	}
}

// unreachable hands on the first reason.
type unreachable struct {
	ctrd.Handler
	told chan error
	once sync.Once
}

func (u *unreachable) Connected(_ bool, reason error) { u.once.Do(func() { u.told <- reason }) }
