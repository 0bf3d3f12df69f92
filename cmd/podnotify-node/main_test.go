package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
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
}
