package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
)

// genuine are the imported files whose own program is run, with what their unit or
// job has done before it. Of all others the program is not installed for the tests,
// or needs what only a whole machine gives: a socket of systemd's (docker, dbus), a
// terminal (tty1), or the right to act on the machine (cron, sshd).
var genuine = map[string]struct {
	debian, before string
	deaf           bool // it may miss a TERM right after its READY=1
}{
	"redis-server.service": {debian: "redis-server", before: "mkdir -p /run/redis /var/log/redis /var/lib/redis"},
	"redis.conf":           {debian: "redis-server", before: "mkdir -p /run/redis /var/log/redis /var/lib/redis"},
	"nginx.service":        {debian: "nginx-light", before: "mkdir -p /var/log/nginx /var/lib/nginx"},
	"named.service":        {debian: "bind9", before: "mkdir -p /run/named /var/cache/bind"},
	"mosquitto.service": {debian: "mosquitto", deaf: true, before: "mkdir -p /run/mosquitto /var/log/mosquitto /var/lib/mosquitto; " +
		"chown mosquitto /run/mosquitto /var/log/mosquitto /var/lib/mosquitto"},
}

// TestImported: what was imported from each of the real units and the jobs passes
// the check, and the command that it names runs with it: it becomes ready, and it
// ends when it is told to.
func TestImported(t *testing.T) {
	t.Parallel()
	standin := compile(t, "standin", "-static")
	files := slices.Concat(glob(t, "../internal/initfile/testdata/units/*.service"), glob(t, "../internal/initfile/testdata/jobs/*.conf"))
	for _, file := range files {
		name := filepath.Base(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			dir := tempDir(t)
			lines := strings.Split(read(t, file), "\n")
			x := (*pod)(nil).start(t, order{}, bin.podnotify, "config", "import", "--mode", "run", file)
			if code := x.exit(); code != 0 {
				t.Fatalf("import ends with %d: %s", code, &x.stderr)
			}
			translation := write(t, dir+"/podnotify.yaml", x.stdout.String())
			x = (*pod)(nil).start(t, order{}, bin.podnotify, "config", "check", "--mode", "run", translation)
			if code := x.exit(); code != 0 {
				t.Fatalf("check ends with %d: %s%s", code, &x.stdout, &x.stderr)
			}
			command := runBy(translation, t)
			if command == "" {
				if name != "state.conf" { // a job without a process
					t.Error("it does not say how it is run")
				}
				return
			}
			if name == "scripted.conf" {
				body := between(lines, "script", "end script")
				write(t, dir+"/default", "")
				write(t, dir+"/scripted.sh", strings.ReplaceAll(strings.ReplaceAll(body, "/etc/default/scripted", dir+"/default"), "/usr/bin/scripted", dir+"/daemon"))
			}
			before := "true"
			if real, ok := genuine[name]; ok {
				need(t, program(command), real.debian)
				before = real.before
			} else {
				how := waysOf(lines)
				write(t, dir+"/daemon", "#!/bin/sh\nexec "+standin+" "+how+"\n")
				if err := os.Chmod(dir+"/daemon", 0o755); err != nil {
					t.Fatal(err)
				}
				command = strings.Replace(command, program(command), dir+"/daemon", 1)
			}
			need(t, "ip", "iproute2")

			// In namespaces of its own, because it listens where it always does and
			// writes where it always does.
			script := fmt.Sprintf(`set -e
ip link set lo up
for d in /run /var/log /var/lib /var/cache; do mount -t tmpfs none $d; done
mkdir -p /run/php /run/tor
%s
cd %s
exec %s run --config %s --run-dir %[2]s/run --log-format text -- %[5]s`, before, dir, bin.podnotify, translation, command)
			mark := dir + "/mark"
			env := []string{"CONF=/etc/redis/redis.conf", "GREETING=hello", "STANDIN_MARK=" + mark} // the first two are from jobs
			n := &podnotify{process: newPod(t).start(t, order{env: env, through: []string{"unshare", "-n", "-m"}}, "sh", "-c", script), dir: dir + "/run"}
			n.endWithTest()
			eventually(t, "it is ready", func() bool {
				if n.over() {
					t.Fatalf("run has ended with %d", n.exit())
				}
				return n.answersInside("/readyz") == http.StatusOK
			})
			eventually(t, "it can be ended in peace", func() bool {
				switch {
				case before == "true":
					return exists(mark)
				case name == "redis.conf": // it stops itself before it catches TERM
					return slices.ContainsFunc(n.family(), func(st proc.Stat) bool { return catches(st.PID, unix.SIGTERM) })
				}
				return true
			})
			n.signal(unix.SIGTERM)
			for range 30 {
				if !genuine[name].deaf || n.over() {
					break
				}
				select {
				case <-n.ended:
				case <-time.After(time.Second):
					_ = n.Signal(unix.SIGTERM) // or it has just ended
				}
			}
			if code := n.exit(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if left := n.family(); len(left) > 0 {
				t.Errorf("left behind: %+v", left)
			}
		})
	}
}

// answersInside asks once over the control socket, which can be reached from
// another network namespace. It returns the status, 0 for none.
func (n *podnotify) answersInside(page string) int {
	inside := http.Client{Timeout: bound, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.dir+"/control")
		},
	}}
	r, err := inside.Get("http://podnotify" + page)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < 10 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var runLine = regexp.MustCompile(`(?m)^#   podnotify run --config FILE -- (.*)$`)

// runBy is the command that a translation names, for a shell.
func runBy(file string, t *testing.T) string {
	t.Helper()
	if m := runLine.FindStringSubmatch(read(t, file)); m != nil {
		return m[1]
	}
	return ""
}

var programs = regexp.MustCompile(`/[a-z/]*bin/[^ ']+|/usr/libexec/[^ ']+|scripted\.sh`)

// program is what a command runs.
func program(command string) string { return programs.FindString(command) }

var ways = map[string]string{"Type=notify": "notify", "Type=forking": "fork", "expect stop": "stop", "expect fork": "fork", "expect daemon": "daemon",
	"expect none-of-these": "simple"} // which takes back the line before

// waysOf says how the daemon of a unit or job tells that it is ready, as the file
// says, in standin's words.
func waysOf(lines []string) string {
	how, pidfile := "simple", ""
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if w, ok := ways[l]; ok {
			how = w
		}
		if v, ok := strings.CutPrefix(l, "PIDFile="); ok {
			pidfile = strings.ReplaceAll(v, "%i", "")
		}
	}
	if how == "fork" {
		return how + " " + pidfile
	}
	return how
}

// between is the text between two lines.
func between(lines []string, from, to string) string {
	i := slices.Index(lines, from)
	j := slices.Index(lines, to)
	if i < 0 || j < i {
		return ""
	}
	return strings.Join(lines[i+1:j], "\n") + "\n"
}
