package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/internal/lean"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// began is on how many processors a probe begins.
var began int

func TestMain(m *testing.M) {
	began = runtime.GOMAXPROCS(lean.Procs) // tests need not be light
	_ = flag.Set("test.parallel", strconv.Itoa(lean.Procs))
	goleak.VerifyTestMain(m)
}

func TestLean(t *testing.T) {
	if began != 1 {
		t.Errorf("a probe begins on %d processors", began)
	}
}

type service struct {
	name   string
	look   lifecycle.Snapshot
	policy lifecycle.Policy
}

func (s *service) Name() string              { return s.name }
func (s *service) Policy() *lifecycle.Policy { return &s.policy }
func (s *service) Look() *lifecycle.Snapshot { return &s.look }

func (s *service) Command(lifecycle.ProcID) string { return "" }

// build builds a command of this module as it is shipped.
func build(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", name, err, out)
	}
	return path
}

// TestSame holds podnotify-healthcheck and podnotify healthcheck to one table:
// the exit code, and every word.
func TestSame(t *testing.T) {
	id := lifecycle.ProcID{PID: 42, Start: 1}
	server := httptest.NewServer(probes.Handler(probes.Config{Healthy: func() error { return nil }, Services: []probes.Source{
		&service{"redis", lifecycle.Snapshot{Phase: lifecycle.Ready, Main: id, Started: true, GateOpen: true}, lifecycle.DefaultPolicy()},
		&service{"web", lifecycle.Snapshot{Phase: lifecycle.Starting, Main: id, Status: "warm \x1b[31m up"}, lifecycle.DefaultPolicy()},
	}}))
	defer server.Close()
	chunked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		io.WriteString(w, "ok")
	}))
	defer chunked.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := l.Addr().String()
	l.Close()

	const notYet = "start: not ready yet: no READY=1 and no stop so far"
	programs := map[string][]string{
		"podnotify-healthcheck": {build(t, "podnotify-healthcheck")},
		"podnotify healthcheck": {build(t, "podnotify"), "healthcheck"},
	}
	for _, test := range []struct {
		args    string // AT is the server
		code    int
		out     string // regular expressions of all that is printed
		err     string
		address string // PODNOTIFY_ADDRESS, if not the server
	}{
		{args: "", code: 1, out: "web: " + notYet + "; STATUS=warm .*\n"},
		{args: "ready", code: 1, out: "web: " + notYet + "; STATUS=warm .*\n"},
		{args: "ready --service redis", out: "ok\n"},
		{args: "--service=redis ready", out: "ok\n"},
		{args: "--service web", code: 1, out: notYet + "; STATUS=warm [^\x1b]* up\n"},
		{args: "startup --service web", code: 1, out: notYet + ".*\n"},
		{args: "startup --service redis", out: "ok\n"},
		{args: "live", out: "ok\n"},
		{args: "bound", out: "ok\n"},
		{args: "-- live", out: "ok\n"},
		{args: "--fail-open --service web", code: 1, out: notYet + ".*\n"}, // the daemon's no stays a no
		{args: "--service nobody", code: 1, out: `no service "nobody".*` + "\n"},
		{args: "--service redis/../web", code: 1, out: "no service .*\n"},
		{args: "--service redis --wait 1h", out: "ok\n"},
		{args: "--service web --wait 1ms", code: 1, out: notYet + ".*\n"},
		{args: "live --address AT", address: "127.0.0.1:1", out: "ok\n"},
		{args: "live --address=AT/", address: "127.0.0.1:1", out: "ok\n"},

		{args: "live", address: refusing, code: 1, err: "cannot ask podnotify at http://" + refusing + ": connection refused; is it running there\\?\n"},
		{args: "live --fail-open", address: refusing, out: "ok: podnotify at http://" + refusing + " does not answer \\(connection refused\\), which --fail-open counts as yes\n"},
		{args: "live --fail-open=false", address: refusing, code: 1, err: "cannot ask podnotify .*\n"},
		{args: "live --fail-open --address nosuchhost.invalid:1", code: 1, err: "cannot ask podnotify at http://nosuchhost.invalid:1: .*\n"},
		{args: "live --fail-open", address: chunked.URL, code: 1, err: "cannot read the answer of " + chunked.URL + `: it comes in Transfer-Encoding "chunked", which podnotify does not use; is it podnotify that runs there\?` + "\n"},

		{args: "health", code: 1, err: `cannot ask for "health": is not known; write bound, startup, ready or live, and a service as --service NAME` + "\n"},
		{args: "bound --service redis", code: 1, err: "cannot ask for bound of a service: .*; leave out --service\n"},
		{args: "live --address https://127.0.0.1:1", code: 1, err: `cannot use address "https://127.0.0.1:1" \(from --address\): podnotify speaks plain HTTP; write http://` + "\n"},
		{args: "live", address: "localhost", code: 1, err: `cannot use address "localhost" \(from PODNOTIFY_ADDRESS\): has no port; .*` + "\n"},
		{args: "live ready", code: 1, err: `cannot read the command line: "ready" is one argument too many; see SELF --help` + "\n"},
		{args: "--bogus", code: 1, err: "cannot read the command line: unknown flag: --bogus; see SELF --help\n"},
		{args: "--bogus=1 live", code: 1, err: "cannot read the command line: unknown flag: --bogus; see SELF --help\n"},
		{args: "-x", code: 1, err: "cannot read the command line: unknown shorthand flag: 'x' in -x; see SELF --help\n"},
		{args: "live --wait", code: 1, err: "cannot read the command line: flag needs an argument: --wait; see SELF --help\n"},
		{args: "--wait soon", code: 1, err: `cannot read the command line: invalid argument "soon" for "--wait" flag: time: invalid duration "soon"; see SELF --help` + "\n"},
		{args: "--fail-open=perhaps", code: 1, err: `cannot read the command line: invalid argument "perhaps" for "--fail-open" flag: .*; see SELF --help` + "\n"},
		{args: "---", code: 1, err: "cannot read the command line: .*\n"},
		{args: "-", code: 1, err: `cannot ask for "-": .*` + "\n"},
		{args: "--help", out: "(?s)Ask a running podnotify one question.*Usage:.*--address.*--fail-open.*--service.*--wait.*"},
		{args: "-h", out: "(?s)Ask a running podnotify one question.*"},
	} {
		var printed []string
		for name, program := range programs {
			args := strings.Fields(strings.ReplaceAll(test.args, "AT", server.URL))
			cmd := exec.Command(program[0], append(program[1:], args...)...)
			cmd.Env = append(os.Environ(), "PODNOTIFY_ADDRESS="+server.URL)
			if test.address != "" {
				cmd.Env = append(cmd.Env, "PODNOTIFY_ADDRESS="+test.address)
			}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			exit := (*exec.ExitError)(nil)
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			out, errText := stdout.String(), stderr.String()
			if short, _, _ := strings.Cut(name, " "); errText != "" {
				var prefixed bool
				if errText, prefixed = strings.CutPrefix(errText, short+": "); !prefixed {
					t.Errorf("%s %s does not say who speaks: %q", name, test.args, errText)
				}
			}
			want := strings.ReplaceAll(test.err, "SELF", name)
			if cmd.ProcessState.ExitCode() != test.code || !regexp.MustCompile("^"+test.out+"$").MatchString(out) || !regexp.MustCompile("^"+want+"$").MatchString(errText) {
				t.Errorf("%s %s: code %d, %q, %q; want %d, %q, %q", name, test.args, cmd.ProcessState.ExitCode(), out, errText, test.code, test.out, want)
			}
			printed = append(printed, out+strings.ReplaceAll(errText, name, "SELF"))
		}
		if !strings.Contains(test.args, "-h") && !strings.Contains(test.args, "---") && printed[0] != printed[1] {
			t.Errorf("%s: one says %q, the other %q", test.args, printed[0], printed[1])
		}
	}
}

// TestWeight: every exec probe reads this file and pays for what is in it.
func TestWeight(t *testing.T) {
	const most = 2_200_000
	fi, err := os.Stat(build(t, "podnotify-healthcheck"))
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > most {
		t.Errorf("stripped it is %d bytes, more than %d", fi.Size(), most)
	}
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		switch {
		case p == "fmt", p == "flag", p == "net/http", p == "net/url", strings.HasPrefix(p, "encoding/"), strings.HasPrefix(p, "golang.org/"):
			t.Errorf("it links %s", p)
		case strings.HasPrefix(p, "github.com/") && !strings.HasPrefix(p, "github.com/podnotify/podnotify/"):
			t.Errorf("it links %s", p)
		}
	}
}
