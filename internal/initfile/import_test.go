package initfile

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

var update = flag.Bool("update", false, "rewrite testdata/golden")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var modes = map[string]config.Mode{"run": config.Run, "sidecar": config.Sidecar}

// samples are the real units and the jobs of testdata.
func samples(t testing.TB) []string {
	t.Helper()
	var out []string
	for pattern, least := range map[string]int{"testdata/units/*.service": 20, "testdata/jobs/*.conf": 10} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < least {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		out = append(out, files...)
	}
	return out
}

// asSidecar are the samples whose translation for a sidecar is kept, too.
var asSidecar = []string{"redis-server.service", "nginx.service", "apache2.service", "dbus.service", "ssh.conf", "redis.conf"}

func TestGolden(t *testing.T) {
	for _, file := range samples(t) {
		for way, mode := range modes {
			name := filepath.Base(file) + "." + way + ".yaml"
			t.Run(name, func(t *testing.T) {
				text := read(t, file)
				got := mustImport(t, file, text, mode)
				check(t, file, text, got, mode)
				if mode == config.Sidecar && !slices.Contains(asSidecar, filepath.Base(file)) {
					return
				}
				golden := filepath.Join("testdata/golden", name)
				if *update {
					if err := os.WriteFile(golden, got.YAML, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if diff := cmp.Diff(read(t, golden), string(got.YAML)); diff != "" {
					t.Errorf("differs from %s; if that is meant: go test -run TestGolden -update\n%s", golden, diff)
				}
			})
		}
	}
}

func read(t testing.TB, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustImport(t testing.TB, path, text string, mode config.Mode) Result {
	t.Helper()
	r, err := Import(path, []byte(text), mode)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// load reads a translation as podnotify would.
func load(t testing.TB, r Result, mode config.Mode) config.Config {
	t.Helper()
	cfg, err := config.Load(mode, nil, nil, func(string) ([]byte, error) { return r.YAML, nil }, nil)
	if err != nil {
		t.Fatalf("config check: %v\n%s", err, r.YAML)
	}
	return cfg
}

// check holds of every translation: podnotify can use it, every line of the file
// is in it, and what it says of a line is in that line.
func check(t testing.TB, path, text string, r Result, mode config.Mode) {
	t.Helper()
	load(t, r, mode)
	in := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	told := references(len(in), string(r.YAML))
	upstart := filepath.Ext(path) == ".conf"
	for i, l := range in {
		if n := i + 1; !told[n] && substantial(l, upstart) {
			t.Errorf("%s:%d is not accounted for: %q\n%s", path, n, l, r.YAML)
		}
	}
	for _, w := range r.Warnings {
		if !strings.Contains(string(r.YAML), "\n#   "+w+"\n") {
			t.Errorf("the warning %q is not in\n%s", w, r.YAML)
		}
	}
}

var reference = regexp.MustCompile(`\blines? (\d+)(?:-(\d+))?`)

// references are the lines that the comments name.
func references(most int, yaml string) map[int]bool {
	told := map[int]bool{}
	for _, l := range strings.Split(yaml, "\n") {
		_, comment, _ := strings.Cut(l, "# ")
		for _, m := range reference.FindAllStringSubmatch(comment, -1) {
			first, _ := strconv.Atoi(m[1])
			last := first
			if m[2] != "" {
				last, _ = strconv.Atoi(m[2])
			}
			for n := first; n <= min(last, most); n++ {
				told[n] = true
			}
		}
	}
	return told
}

// substantial reports whether a line says something: it is not blank, no
// comment, no backslash alone, and not the name of a known section.
func substantial(l string, upstart bool) bool {
	l = strings.TrimSpace(strings.Trim(strings.TrimSpace(strings.TrimPrefix(l, "\ufeff")), `\`))
	switch {
	case l == "", l[0] == '#':
		return false
	case upstart:
		return true
	}
	return l[0] != ';' && l[0] != '['
}

// TestLinesAreRight compares what is said of a line with that line, in files
// whose texts do not look like ours.
func TestLinesAreRight(t *testing.T) {
	said := regexp.MustCompile(`\blines? (\d+)(?:-\d+)?: ([A-Za-z-]+)`)
	for _, file := range samples(t) {
		in := strings.Split(read(t, file), "\n")
		out := mustImport(t, file, read(t, file), config.Run)
		all := said.FindAllStringSubmatch(string(out.YAML), -1)
		if len(all) == 0 {
			t.Errorf("%s: no line is told of", file)
		}
		for _, m := range all {
			if n, _ := strconv.Atoi(m[1]); !strings.HasPrefix(strings.TrimSpace(in[n-1]), m[2]) {
				t.Errorf("%s:%d is %q, and called %q", file, n, in[n-1], m[0])
			}
		}
	}
}

// unitWith is a unit with some lines in [Service], from line 3 on.
func unitWith(lines ...string) string {
	return "[Service]\nExecStart=/bin/true\n" + strings.Join(lines, "\n") + "\n"
}

// keys are the values of a translation, by key.
func keys(cfg config.Config) map[string]string {
	out := map[string]string{}
	for _, s := range cfg.Settings {
		if s.Origin.String() != "default" && s.Service != "" {
			out[s.Key] = s.Value
		}
	}
	delete(out, "name")
	return out
}

func TestService(t *testing.T) {
	type want map[string]string
	never := want{"expect": "none", "respawn.mode": "platform"}
	with := func(base want, more ...string) want {
		out := want{}
		for k, v := range base {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
			if more[i+1] == "" {
				delete(out, more[i])
			}
		}
		return out
	}
	always := want{"expect": "none", "respawn.mode": "exec", "respawn.when": "always", "respawn.limit": "5", "respawn.interval": "10s",
		"respawn.delay": "100ms", "respawn.max-delay": "100ms"}
	failure := with(always, "respawn.when", "on-failure", "respawn.normal-exit", "HUP,INT,PIPE,TERM")

	for _, c := range []struct {
		about    string
		lines    string
		want     want
		warnings int
	}{
		{"nothing", "", never, 0},
		{"types", "Type=exec", never, 0},
		{"types: a later one counts", "Type=notify\nType=simple", never, 0},
		{"types: what systemd cannot read it ignores", "Type=notify\nType=Notify", with(never, "expect", "notify", "notify.access", "main"), 1},
		{"types: which counts for the rest, too", "Type=notify-reload\nType=NOTIFY\nTimeoutStartSec=9", with(never, "expect", "notify", "notify.access", "main", "timeouts.start", "9s", "timeouts.reload", "9s", "signals.reload", "HUP"), 1},
		{"types: oneshot is no daemon", "Type=oneshot", never, 1},
		{"types: by bus", "BusName=org.example", never, 1},
		{"types: fork is a guess", "Type=forking", with(never, "expect", "fork"), 1},
		{"types: forking with a PID file", "Type=forking\nPIDFile=/run/%p.pid", with(never, "expect", "pidfile", "select.pidfile", "/run/foo.pid"), 0},
		{"types: PID files are below /run", "PIDFile=a/b.pid\nType=forking", with(never, "expect", "pidfile", "select.pidfile", "/run/a/b.pid"), 0},
		{"types: a PID file of an instance that is none", "Type=forking\nPIDFile=%i", with(never, "expect", "pidfile", "select.pidfile", "/run/"), 0},
		{"types: a PID file taken back", "Type=forking\nPIDFile=/run/x\nPIDFile=", with(never, "expect", "fork"), 1},
		{"types: a PID file means nothing elsewhere", "PIDFile=/run/x", never, 0},

		{"access", "NotifyAccess=all", with(never, "notify.access", "all"), 1},
		{"access: none is main with Type=notify", "Type=notify\nNotifyAccess=none", with(never, "expect", "notify", "notify.access", "main"), 0},
		{"access: none", "NotifyAccess=none", with(never, "notify.access", "none"), 0},
		{"access: a watchdog needs it", "WatchdogSec=1min 30s", with(never, "notify.access", "main", "watchdog.interval", "1m30s"), 0},
		{"access: no watchdog", "WatchdogSec=infinity", with(never, "watchdog.interval", "0s"), 0},
		{"access: descriptors need it", "FileDescriptorStoreMax=3", with(never, "notify.access", "main", "fdstore.max", "3"), 0},

		{"time-outs", "TimeoutStartSec=5\nTimeoutStopSec=1h", with(never, "timeouts.start", "5s", "timeouts.stop", "1h"), 0},
		{"time-outs: of a reload, too", "TimeoutStartSec=5\nType=notify", with(never, "expect", "notify", "notify.access", "main", "timeouts.start", "5s", "timeouts.reload", "5s"), 0},
		{"time-outs: both", "TimeoutStopSec=9\nTimeoutSec=5min", with(never, "timeouts.start", "5m", "timeouts.stop", "5m"), 0},
		{"time-outs: both, then one", "TimeoutSec=0\nTimeoutStopSec=500ms", with(never, "timeouts.start", "0s", "timeouts.stop", "500ms"), 0},
		{"time-outs: none", "TimeoutStartSec=infinity", with(never, "timeouts.start", "0s"), 0},
		{"time-outs: nonsense is ignored, once", "TimeoutSec=10\nTimeoutSec=soon\nTimeoutSec=", with(never, "timeouts.start", "10s", "timeouts.stop", "10s"), 2},

		{"signals", "KillSignal=SIGQUIT\nWatchdogSignal=9", with(never, "signals.kill", "QUIT", "watchdog.signal", "9"), 0},
		{"signals: real time", "KillSignal=RTMIN+3", with(never, "signals.kill", "RTMIN+3"), 0},
		{"signals: unknown", "KillSignal=SIGNAL", never, 1},

		{"reload", "ExecReload=/bin/kill -HUP $MAINPID", with(never, "signals.reload", "HUP"), 0},
		{"reload: -s", "ExecReload=+/bin/kill -s SIGUSR1 ${MAINPID}", with(never, "signals.reload", "USR1"), 0},
		{"reload: -1", "ExecReload=kill -1 -- $MAINPID", with(never, "signals.reload", "1"), 0},
		{"reload: --signal", "ExecReload=-/usr/bin/kill --signal=USR2 $MAINPID", with(never, "signals.reload", "USR2"), 0},
		{"reload: by a shell", `ExecReload=/bin/sh -c "exec kill -WINCH $MAINPID;"`, with(never, "signals.reload", "WINCH"), 0},
		{"reload: by a shell, and more", `ExecReload=/bin/sh -c "foo; kill -HUP $MAINPID"`, never, 0},
		{"reload: a check before it", "ExecReload=/usr/sbin/foo -t\nExecReload=/bin/kill -HUP $MAINPID", with(never, "signals.reload", "HUP"), 0},
		{"reload: a check in the same line", "ExecReload=/usr/sbin/foo -t ; /bin/kill -HUP $MAINPID", with(never, "signals.reload", "HUP"), 1},
		{"reload: taken back", "ExecReload=/bin/kill -HUP $MAINPID\nExecReload=\nExecReload=/usr/sbin/foo reload", never, 0},
		{"reload: another process", "ExecReload=/bin/kill -HUP 1", never, 0},
		{"reload: by Type=", "Type=notify-reload", with(never, "expect", "notify", "notify.access", "main", "signals.reload", "HUP"), 0},
		{"reload: by Type=, named", "Type=notify-reload\nReloadSignal=SIGUSR1", with(never, "expect", "notify", "notify.access", "main", "signals.reload", "USR1"), 0},
		{"reload: ReloadSignal= alone", "ReloadSignal=SIGUSR1\nExecReload=/bin/kill -HUP $MAINPID", with(never, "signals.reload", "HUP"), 0},
		{"reload: two signals", "Type=notify-reload\nExecReload=/bin/kill -USR2 $MAINPID", with(never, "expect", "notify", "notify.access", "main", "signals.reload", "HUP"), 1},

		{"restart", "Restart=always", always, 0},
		{"restart: no", "Restart=no\nRestartSec=5\nSuccessExitStatus=1", never, 0},
		{"restart: on-failure", "Restart=on-failure", failure, 0},
		{"restart: on-failure of a oneshot", "Type=oneshot\nRestart=on-failure", with(failure, "respawn.normal-exit", ""), 1},
		{"restart: on-abnormal", "Restart=on-abnormal", failure, 1},
		{"restart: on-abort", "Restart=on-abort", failure, 1},
		{"restart: on-success", "Restart=on-success", always, 1},
		{"restart: on-watchdog", "Restart=on-watchdog\nSuccessExitStatus=1", with(always, "respawn.when", "never"), 0},
		{"restart: a good end restarts, too", "Restart=always\nSuccessExitStatus=143", always, 0},
		{"restart: good ends", "Restart=on-failure\nSuccessExitStatus=TEMPFAIL 250 SIGKILL\nSuccessExitStatus=0 3", with(failure, "respawn.normal-exit", "HUP,INT,PIPE,TERM,75,250,KILL,3"), 0},
		{"restart: good ends taken back", "Restart=on-failure\nSuccessExitStatus=1\nSuccessExitStatus=\nSuccessExitStatus=2", with(failure, "respawn.normal-exit", "HUP,INT,PIPE,TERM,2"), 0},
		{"restart: unknown ends", "Restart=on-failure\nSuccessExitStatus=EXEC 256 7", with(failure, "respawn.normal-exit", "HUP,INT,PIPE,TERM,7"), 2},
		{"restart: ends that prevent it", "Restart=always\nRestartPreventExitStatus=0 255", with(always, "respawn.normal-exit", "0,255"), 0},
		{"restart: ends that force it", "Restart=on-failure\nRestartForceExitStatus=SIGPIPE SIGHUP", with(failure, "respawn.normal-exit", "INT,TERM"), 0},
		{"restart: prevention is stronger", "Restart=always\nRestartPreventExitStatus=5\nRestartForceExitStatus=5", with(always, "respawn.normal-exit", "5"), 0},
		{"restart: 0 cannot be forced", "Restart=on-failure\nRestartForceExitStatus=0", failure, 1},
		{"restart: delay", "Restart=always\nRestartSec=5", with(always, "respawn.delay", "5s", "respawn.max-delay", "5s"), 0},
		{"restart: no delay", "Restart=always\nRestartSec=0", with(always, "respawn.delay", "0s", "respawn.max-delay", "0s"), 0},
		{"restart: a delay without end is none systemd can read", "Restart=always\nRestartSec=infinity", always, 1},
		{"restart: growing delay", "Restart=always\nRestartSec=1\nRestartSteps=4\nRestartMaxDelaySec=1min", with(always, "respawn.delay", "1s", "respawn.max-delay", "1m"), 1},
		{"restart: a longest delay that is shorter", "Restart=always\nRestartSec=90\nRestartSteps=4\nRestartMaxDelaySec=1min", with(always, "respawn.delay", "1m30s", "respawn.max-delay", "1m30s"), 0},
		{"restart: a delay that cannot grow", "Restart=always\nRestartSec=1\nRestartMaxDelaySec=1min", with(always, "respawn.delay", "1s", "respawn.max-delay", "1s"), 0},
		{"restart: limit, older words", "Restart=always\nStartLimitBurst=3\nStartLimitInterval=60s", with(always, "respawn.limit", "3", "respawn.interval", "1m"), 0},
		{"restart: limit, of today", "Restart=always\n[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=2min", with(always, "respawn.limit", "2", "respawn.interval", "2m"), 0},
		{"restart: no limit", "Restart=always\nStartLimitInterval=0", with(always, "respawn.interval", "0s"), 0},
		{"restart: no limit, by count", "Restart=always\nStartLimitBurst=0\nStartLimitInterval=5", with(always, "respawn.limit", "0", "respawn.interval", "0s"), 0},

		{"lines: continued", "Restart=\\\n# in between\n  always", always, 0},
		{"lines: a comment does not continue", "# comment \\\nRestart=always", always, 0},
		{"lines: an escaped backslash does not continue", "Description=x\\\\\nRestart=always", always, 1},
		{"lines: a blank one ends it", "Restart=\\\n\nRestart=always", always, 1},
		{"lines: no =", "Restart", never, 1},
		{"lines: spaces around =", "  Restart  =  always  ", always, 0},
		{"lines: an unknown key", "Restrat=always", never, 1},
		{"lines: a key in the wrong section", "[Unit]\nRestart=always", never, 1},
		{"lines: sections of others", "[X-Foo]\nRestart=always\n[Socket]\nA=b\n[Service]\nX-Bar=1", never, 0},
		{"lines: longer than 2048 bytes", "Environment=A=" + strings.Repeat("x", 5000) + "\nRestart=always", always, 0},
	} {
		t.Run(c.about, func(t *testing.T) {
			text := unitWith(c.lines)
			r := mustImport(t, "/x/foo.service", text, config.Run)
			check(t, "foo.service", text, r, config.Run)
			if diff := cmp.Diff(map[string]string(c.want), keys(load(t, r, config.Run))); diff != "" {
				t.Errorf("%s\n%s", diff, r.YAML)
			}
			if len(r.Warnings) != c.warnings {
				t.Errorf("%d warnings, want %d: %q", len(r.Warnings), c.warnings, r.Warnings)
			}
			check(t, "foo.service", text, mustImport(t, "foo.service", text, config.Sidecar), config.Sidecar)
		})
	}
}

// TestKeysAreKnown: no key of a real unit is called unknown.
func TestKeysAreKnown(t *testing.T) {
	for _, file := range samples(t) {
		for _, w := range mustImport(t, file, read(t, file), config.Run).Warnings {
			if strings.Contains(w, "podnotify knows no") {
				t.Errorf("%s: %s", file, w)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/lib/systemd/system/foo@.service":    "foo",
		"foo@.service":                            "foo",
		"foo@bar.service":                         "foo-bar",
		"Foo_Bar.service":                         "foo-bar",
		"php8.2-fpm.service":                      "php8-2-fpm",
		"null.service":                            "null",
		"0777.service":                            "0777",
		"@.service":                               "daemon",
		"größe.service":                           "gr--e",
		strings.Repeat("x", 62) + "--y.service":   strings.Repeat("x", 62),
		strings.Repeat("x", 100) + ".service":     strings.Repeat("x", 63),
		"dbus-org.freedesktop.resolve1.service":   "dbus-org-freedesktop-resolve1",
		"systemd-fsck@dev-disk-by\\x2did.service": "systemd-fsck-dev-disk-by-x2did",
	} {
		for _, mode := range modes {
			r := mustImport(t, path, unitWith(), mode)
			if got := load(t, r, mode).Services[0].Name; got != want {
				t.Errorf("%s: name %q, want %q", path, got, want)
			}
		}
	}
	// upstart's names are paths below /etc/init, and a daemon may look at them.
	for path, want := range map[string]string{"/srv/etc/init/net/Apache.conf": "net/Apache", "scylla-server.conf": "scylla-server"} {
		r := mustImport(t, path, "expect stop\nexec x\n", config.Run)
		if s := load(t, r, config.Run).Services[0]; s.Job != want || s.Policy.Expect != lifecycle.ExpectStop {
			t.Errorf("%s: job %q, want %q", path, s.Job, want)
		}
	}
}

// Whatever a file holds, it stays on its line of a comment, or in its value.
func TestHostile(t *testing.T) {
	for _, value := range []string{"a\x1b[2Jb", "a\x85b", "a\u0085b", "a\u2028services: []", "\xff\xfe", "a\rb", "a: #b \"c\" 'd'", "{x}", "\ufeff", strings.Repeat("é", 200)} {
		text := "[Unit]\nDescription=" + value + "\n[Service]\nType=forking\nPIDFile=/" + value + "\nExecStart=/bin/x '" + value + "'\nExecReload=" + value + "\nNo" + value + "\n"
		for _, mode := range modes {
			r := mustImport(t, "x.service", text, mode)
			check(t, "x.service", text, r, mode)
			if strings.ContainsAny(string(r.YAML), "\x1b\u0085\u2028\r\ufeff") || !utf8.Valid(r.YAML) {
				t.Errorf("%q: %q", value, r.YAML)
			}
			if utf8.ValidString(value) && !strings.ContainsAny(value, "%\r\ufeff") {
				if got := load(t, r, mode).Services[0].PIDFile; got != "/"+value {
					t.Errorf("PID file %q, want %q", got, "/"+value)
				}
			}
		}
	}
}

func TestSpecifiers(t *testing.T) {
	for _, c := range []struct{ path, in, want, left string }{
		{"foo-bar@a-b\\x2dc.service", "%i %I %p %P %j %n %N %%", "a-b\\x2dc a/b-c foo-bar foo/bar bar foo-bar@a-b\\x2dc.service foo-bar@a-b\\x2dc %", ""},
		{"foo@.service", "%p-%i-%i", "foo-%i-%i", "%i"},
		{"foo.service", "%t/%p %S %C %L %E %T %V", "/run/foo /var/lib /var/cache /var/log /etc /tmp /var/tmp", ""},
		{"foo.service", "%H %u 5% 100%% %- ", "%H %u 5% 100% %- ", "%H %u"},
	} {
		got, left := newUnitName("/x/" + c.path).expand(c.in)
		if got != c.want || strings.Join(left, " ") != c.left {
			t.Errorf("%s: %q is %q, left %q; want %q, %q", c.path, c.in, got, left, c.want, c.left)
		}
	}
	r := mustImport(t, "foo@.service", "[Service]\nType=forking\nPIDFile=/run/%i.pid\nExecStart=/bin/foo %i\n", config.Run)
	if len(r.Warnings) != 2 {
		t.Errorf("two lines have %%i, and the warnings are %q", r.Warnings)
	}
}

// The examples are those of systemd.time(7).
func TestSpans(t *testing.T) {
	for in, want := range map[string]string{
		"2 h": "2h", "2hours": "2h", "48hr": "48h", "1y 12month": "17532h", "55s500ms": "55.5s", "300ms20s 5day": "120h0m20.3s",
		"90": "1m30s", "1min 30s": "1m30s", "0.5": "500ms", "1.5min": "1m30s", "3min": "3m", "1us": "1µs", "20": "20s", "0": "0s", "infinity": "0s",
		" 5 ": "5s", "1M": "730h30m", "1m": "1m", "99999y": "0s", "1h 1s": "1h0m1s",
		"": "!", "-1": "!", "5 parsecs": "!", "s": "!", "1..5s": "!", "5s!": "!", "0x10": "!", "NaN": "!", ".": "!",
	} {
		got, ok := timeout(in)
		if !ok {
			got = "!"
		}
		if got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
		if _, err := time.ParseDuration(got); ok && err != nil {
			t.Error(err)
		}
	}
}

// TestShell has a shell run what we write, and compares what the program gets
// with what systemd would have given it.
func TestShell(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no sh")
	}
	// It prints its arguments, each in brackets.
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!"+sh+"\nfor a; do printf '[%s]' \"$a\"; done\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`a b  c`:                         `[a][b][c]`,
		`"a b" 'c d' e"f g"h`:            `[a b][c d][ef gh]`,
		`$ONE $TWO ${TWO}`:               `[one][two][two][two two]`,
		`x${TWO}y $$ONE $NONE`:           `[xtwo twoy][$ONE]`,
		`${NONE}`:                        `[]`,
		`a$ONE "$$"`:                     `[a$ONE][$]`,
		`\x41\102\tc \\ \q`:              "[AB\tc][\\][\\q]",
		`it\'s "it's" '"' \;`:            `[it's][it's]["][;]`,
		"`id` $(id) *":                   "[`id`][$(id)][*]",
		"${ONE}`id`\\\\\"":               "!",
		"${ONE}`id`$(id)\\\\ '${ONE}\"'": "[one`id`$(id)\\][one\"]",
		`> & | ; ignored`:                `[>][&][|]`,
		`"a`:                             `!`,
	} {
		list, ok := readCommands(program + " " + in)
		if !ok {
			if want != "!" {
				t.Errorf("%s cannot be read", in)
			}
			continue
		}
		cmd := exec.Command(sh, "-c", list[0].shell())
		cmd.Env = []string{"PATH=/bin:/usr/bin", "ONE=one", "TWO=two two"}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s\nis %s\nwhich gives %s (%v)\nwant %s", in, list[0].shell(), out, err, want)
		}
	}
	// : takes variables as they are; @ has a name before the arguments.
	for in, want := range map[string]string{
		":" + program + " $ONE ${TWO} $$": `[$ONE][${TWO}][$$]`,
		"@-" + program + " name a b":      `[a][b]`,
	} {
		list, _ := readCommands(in)
		out, err := exec.Command(sh, "-c", list[0].shell()).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s gives %s (%v), want %s", in, out, err, want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	for in, warnings := range map[string]int{"/bin/x": 0, "-/bin/x": 1, "@/bin/x y": 1, "+/bin/x": 1, "!!/bin/x": 1, ":/bin/x": 0, "-@+/bin/x y": 3, "$X": 1, "": 1, "-": 2} {
		r := mustImport(t, "x.service", "[Service]\nExecStart="+in+"\n", config.Run)
		if in == "" {
			warnings = 2 // nor is there a Type=
		} else if in == "-" {
			warnings = 3
		}
		if len(r.Warnings) != warnings {
			t.Errorf("%q: warnings %q, want %d", in, r.Warnings, warnings)
		}
	}
}

func TestJobs(t *testing.T) {
	for _, c := range []struct {
		job      string
		want     map[string]string
		warnings int
	}{
		{"exec x", map[string]string{"expect": "none", "timeouts.stop": "5s", "respawn.mode": "platform"}, 0},
		{"expect stop\nexec x", map[string]string{"expect": "stop", "job": "foo", "timeouts.stop": "5s", "respawn.mode": "platform"}, 0},
		{"respawn\nexec x", map[string]string{"expect": "none", "timeouts.stop": "5s", "respawn.mode": "exec", "respawn.when": "always",
			"respawn.limit": "10", "respawn.interval": "5s", "respawn.delay": "0s"}, 0},
		{"respawn\nrespawn limit 3 60\ntask\nexec x", map[string]string{"expect": "none", "timeouts.stop": "5s", "respawn.mode": "exec", "respawn.when": "on-failure",
			"respawn.limit": "3", "respawn.interval": "60s", "respawn.delay": "0s"}, 1},
		{"respawn\nrespawn limit unlimited\nnormal exit 0 TERM\nexec x", map[string]string{"expect": "none", "timeouts.stop": "5s", "respawn.mode": "exec",
			"respawn.when": "always", "respawn.normal-exit": "0,TERM", "respawn.interval": "0s", "respawn.delay": "0s"}, 0},
		{"kill signal INT\nkill timeout 60\nreload signal USR1\nexpect daemon\nexec x", map[string]string{"expect": "daemon", "timeouts.stop": "60s",
			"signals.kill": "INT", "signals.reload": "USR1", "respawn.mode": "platform"}, 0},
	} {
		for _, eol := range []string{"\n", "\r\n"} {
			text := strings.ReplaceAll(c.job, "\n", eol) // and none at the end
			r := mustImport(t, "foo.conf", text, config.Run)
			check(t, "foo.conf", text, r, config.Run)
			if diff := cmp.Diff(c.want, keys(load(t, r, config.Run))); diff != "" {
				t.Errorf("%s\n%s\n%s", c.job, diff, r.YAML)
			}
			if len(r.Warnings) != c.warnings {
				t.Errorf("%s: warnings %q, want %d", c.job, r.Warnings, c.warnings)
			}
			check(t, "foo.conf", text, mustImport(t, "foo.conf", text, config.Sidecar), config.Sidecar)
		}
	}
}

// The whole of a stanza is one, wherever its lines end.
func TestStanzas(t *testing.T) {
	got, err := readJob("exec a \\\n  'b\nc' # d\n\nstart on (x\n# y\nand z)\npre-start script\nexec no\nend script\nscript # of it\nend scripts\n end\tscript # yes\nexec end")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%s: %s | %q", s.at, s.text, s.words))
	}
	want := []string{
		`lines 1-3: exec a    'b c' | ["exec" "a" "b c"]`,
		`lines 5-7: start on (x  and z) | ["start" "on" "(x" "and" "z)"]`,
		`lines 8-10: pre-start script ... end script | ["pre-start" "script"]`,
		`lines 11-13: script ... end script | ["script"]`,
		`line 14: exec end | ["exec" "end"]`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ path, text, want string }{
		{"x.socket", "[Socket]\n", "only systemd units (NAME.service) and upstart jobs (NAME.conf) can be imported"},
		{"x.service", "", "it has no section [Service], so it is no unit of a service"},
		{"x.service", "[D-BUS Service]\nName=x\n", "it has no section [Service], so it is no unit of a service"},
		{"x.service", "[Service]\nExecStart=/bin/x\n[Install\n", `line 3: "[Install" is no section; write it like [Service]`},
		{"x.service", "[Service]\n\x00", "it contains a NUL byte, so it is no text"},
		{"x.service", strings.Repeat("#\n", maxFile), "it is larger than 1 MiB"},
		{"x.conf", "\n# nothing\n", "it is empty"},
		{"x.conf", "# of nginx\nserver {\n", `line 2: upstart has no stanza "server {"; is this an upstart job?`},
		{"x.conf", "exec x\nscript\nexec y\n", `line 2: the script has no line "end script"`},
		{"x.conf", "exec x\ndescription \"x\n\n", "line 2: a quote is never closed"},
		{"x.conf", "start on (a\nexec b\n", "line 1: a parenthesis is never closed"},
		{"x.conf", "# drop-in\n[Service]\n", "it is a drop-in of a systemd unit, not an upstart job; import the whole: systemctl cat NAME > NAME.service"},
	} {
		_, err := Import(c.path, []byte(c.text), config.Run)
		if want := "cannot import " + c.path + ": " + c.want; err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", c.text[:min(len(c.text), 40)], err, want)
		}
	}
}

// FuzzImport: whatever a file holds, it is refused, or podnotify can use what
// comes out, and every line is in it.
func FuzzImport(f *testing.F) {
	for _, file := range samples(f) {
		f.Add(filepath.Base(file), read(f, file))
	}
	f.Add("a@b.service", "\ufeff[Service]\r\nExecStart=-/bin/x $A ${B} \\\r\n %i ; y\r\nPIDFile=a\\\nb\nType=forking\nRestart=on-failure\nSuccessExitStatus=1 TERM\n")
	f.Add("a.conf", "exec \"a\\\nb\" #\nrespawn limit \\\n 1 2\nstart on (a)b\nenv A='\n'\n")
	f.Fuzz(func(t *testing.T, path, text string) {
		for _, mode := range modes {
			r, err := Import(path, []byte(text), mode)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\x1b") {
					t.Errorf("the error has more than one line: %q", err)
				}
				continue
			}
			check(t, path, text, r, mode)
		}
	})
}

// What Environment= sets is in the command that is printed, and what nothing sets is
// told.
func TestEnvironment(t *testing.T) {
	r := mustImport(t, "x.service", `[Service]
Environment=NO=1
Environment=
Environment="CONFIG=/etc/x y.cfg" PIDFILE=/run/x.pid
Environment=PIDFILE=/run/y.pid
ExecStart=/usr/bin/x -f $CONFIG -p ${PIDFILE} $OPTIONS
`, config.Run)
	for _, want := range []string{
		`podnotify run --config FILE -- env 'CONFIG=/etc/x y.cfg' PIDFILE=/run/y.pid sh -c 'exec /usr/bin/x -f $CONFIG -p "${PIDFILE}" $OPTIONS'`,
		"this file does not set $OPTIONS: put what an EnvironmentFile= or the manager sets into the environment",
	} {
		if !strings.Contains(string(r.YAML), want) {
			t.Errorf("no %q in\n%s", want, r.YAML)
		}
	}
}
