package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// input is everything Load looks at.
type input struct {
	mode    Mode
	args    string // split at spaces
	env     []string
	file    string // "": there is none
	command []string
}

func (in input) load(t *testing.T) (Config, error) {
	t.Helper()
	return Load(in.mode, flagsOf(t, in.args), in.env, in.read, in.command)
}

// read is a file system with one file, /f.yaml, which the default file is, too.
func (in input) read(name string) ([]byte, error) {
	if in.file == "" || name != "/f.yaml" && name != DefaultFile {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(in.file), nil
}

func flagsOf(t *testing.T, args string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(strings.Fields(args)); err != nil {
		t.Fatal(err)
	}
	return flags
}

func (in input) mustLoad(t *testing.T) Config {
	t.Helper()
	c, err := in.load(t)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return c
}

func (c *Config) setting(t *testing.T, service, key string) Setting {
	t.Helper()
	for _, s := range c.Settings {
		if s.Service == service && s.Key == key {
			return s
		}
	}
	t.Fatalf("there is no setting %s of %q", key, service)
	return Setting{}
}

func TestDefaults(t *testing.T) {
	c := input{args: "--service redis --run-dir /r"}.mustLoad(t)
	want := sidecar.Config{
		Name:           "redis",
		Address:        "/r/redis/notify",
		Mode:           0o666,
		Access:         sidecar.AccessAll,
		Policy:         lifecycle.DefaultPolicy(),
		WatchdogSignal: unix.SIGABRT,
		KillSignal:     unix.SIGTERM,
	}
	if diff := cmp.Diff([]sidecar.Config{want}, c.Services); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c.Listen != ":19119" || c.LogLevel != 0 || c.LogFormat != "auto" || c.File != DefaultFile {
		t.Errorf("defaults of podnotify itself: %+v", c)
	}
}

// Every key of the documented file is understood, and reaches its field.
func TestFullFile(t *testing.T) {
	c := input{mode: Run, command: []string{"redis-server"}, file: `
listen: "127.0.0.1:1234"
run-dir: /r/
log-level: debug
log-format: json
services:
  - name: redis
    expect: stop
    job: redis-job
    notify: {address: "@redis", access: main, mode: 0660}
    select: {container: box, process: "^redis", pidfile: /run/redis.pid}
    timeouts: {start: 1s, reload: 2m, stop: 0}
    watchdog: {interval: 3s, signal: 9}
    gate: {tcp: "localhost:6379"}
    policy:
      start-timeout: not-live
      reloading: not-ready
      errno: ignore
      paused: ignore
      unknown: not-ready
    signals: {kill: SIGQUIT, reload: hup}
    respawn: {mode: exec, when: always, normal-exit: [0, SIGTERM, 143, RTMIN+1], limit: 3, interval: 4s, delay: 5s, max-delay: 6s}
    fdstore: {max: 7}
`}.mustLoad(t)
	s := c.Services[0]
	if s.Process == nil || s.Process.String() != "^redis" {
		t.Errorf("select.process is %v", s.Process)
	}
	s.Process = nil
	want := sidecar.Config{
		Name: "redis", Job: "redis-job", Address: "@redis", Access: sidecar.AccessMain, Mode: 0o660,
		Container: "box", PIDFile: "/run/redis.pid",
		Policy: lifecycle.Policy{
			Expect: lifecycle.ExpectStop, StartTimeout: time.Second, ReloadTimeout: 2 * time.Minute, Watchdog: 3 * time.Second,
			Gate: true, OnStartTimeout: lifecycle.NotLive, OnReload: lifecycle.NotReady, OnErrno: lifecycle.Ignore, OnPaused: lifecycle.Ignore,
			Respawn: lifecycle.Respawn{
				Mode: lifecycle.RespawnExec, When: lifecycle.Always,
				Normal: []lifecycle.Exit{{Known: true}, {Known: true, Signal: 15}, {Known: true, Code: 143}, {Known: true, Signal: 35}},
				Limit:  3, Interval: 4 * time.Second, Delay: 5 * time.Second, MaxDelay: 6 * time.Second,
			},
		},
		WatchdogSignal: unix.SIGKILL, KillSignal: unix.SIGQUIT, ReloadSignal: unix.SIGHUP,
		Gate: "localhost:6379", FDStoreMax: 7,
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c.Listen != "127.0.0.1:1234" || c.RunDir != "/r" || c.LogLevel != -4 || c.LogFormat != "json" {
		t.Errorf("of podnotify itself: %+v", c)
	}
}

// For every key: flag over environment over file over default, and the origin
// that is told is the one whose value won.
func TestPrecedence(t *testing.T) {
	values := map[string][3]string{ // by flag, environment, file
		"listen":     {":1", ":2", ":3"},
		"run-dir":    {"/1", "/2", "/3"},
		"log-level":  {"debug", "warn", "error"},
		"log-format": {"text", "json", "text"},

		"name":                 {"one", "two", "three"},
		"expect":               {"stop", "notify", "none"},
		"job":                  {"one", "two", "three"},
		"notify.address":       {"@1", "@2", "@3"},
		"notify.access":        {"main", "exec", "none"},
		"notify.mode":          {"0600", "0660", "0620"},
		"select.container":     {"one", "two", "three"},
		"select.process":       {"one", "two", "three"},
		"select.pidfile":       {"/1", "/2", "/3"},
		"timeouts.start":       {"1s", "2s", "3s"},
		"timeouts.reload":      {"1s", "2s", "3s"},
		"timeouts.stop":        {"1s", "2s", "3s"},
		"watchdog.interval":    {"1s", "2s", "3s"},
		"watchdog.signal":      {"HUP", "INT", "QUIT"},
		"policy.start-timeout": {"not-live", "report", "not-live"},
		"policy.reloading":     {"not-ready", "keep", "not-ready"},
		"policy.errno":         {"ignore", "not-live", "not-ready"},
		"policy.paused":        {"ignore", "not-ready", "ignore"},
		"signals.kill":         {"HUP", "INT", "QUIT"},
		"signals.reload":       {"HUP", "INT", "QUIT"},
		"gate.tcp":             {"a:1", "b:2", ":3"},
		"respawn.mode":         {"signal", "pod", "platform"},
		"respawn.when":         {"never", "always", "on-failure"},
		"respawn.normal-exit":  {"1", "2", "3"},
		"respawn.limit":        {"1", "2", "3"},
		"respawn.interval":     {"1s", "2s", "3s"},
		"respawn.delay":        {"1s", "2s", "3s"},
		"respawn.max-delay":    {"1s", "2s", "3s"},
		"fdstore.max":          {"1", "2", "3"},
	}
	notInThisVersion := map[string]string{"policy.unknown": "not-ready"}
	for key, v := range notInThisVersion {
		values[key] = [3]string{v, v, v}
	}
	var keys []string
	for i := range processKeys {
		keys = append(keys, processKeys[i].name)
	}
	for i := range serviceKeys {
		keys = append(keys, serviceKeys[i].name)
	}
	for _, key := range keys {
		if key == fileKey { // TestFile
			continue
		}
		t.Run(key, func(t *testing.T) {
			v, ok := values[key]
			if !ok {
				t.Fatal("the test has no values for this key")
			}
			byFlag, byEnv := "--"+flagOf(key)+"="+v[0], envOf(key)+"="+v[1]
			service := isServiceKey(key)
			file := key + ": \"" + v[2] + "\"\n"
			base, line := "--service=base", "1"
			if key == "name" || service {
				base = ""
				section, rest, nested := strings.Cut(key, ".")
				file = "services:\n  - {" + key + ": \"" + v[2] + "\", name: base}\n"
				if key == "name" {
					file = "services:\n  - {name: \"" + v[2] + "\"}\n"
				}
				if nested {
					file = "services:\n  - {" + section + ": {" + rest + ": \"" + v[2] + "\"}, name: base}\n"
				}
				line = "2"
			}
			for _, try := range []struct {
				in     input
				value  string
				origin string
			}{
				{input{args: base + " " + byFlag, env: []string{byEnv}, file: file}, v[0], "flag --" + flagOf(key)},
				{input{args: base, env: []string{byEnv}, file: file}, v[1], "environment " + envOf(key)},
				{input{args: base, file: file}, v[2], "file " + DefaultFile + ":" + line},
			} {
				c := try.in.mustLoad(t)
				name := ""
				if service {
					name = c.Services[0].Name
				}
				s := c.setting(t, name, key)
				if s.Value != try.value || s.Origin.String() != try.origin && try.value != "" {
					t.Errorf("%+v:\n%q from %s, want %q from %s", try.in, s.Value, s.Origin, try.value, try.origin)
				}
			}
		})
	}
}

func TestEmptyEnvironmentIsUnset(t *testing.T) {
	c := input{args: "--service a", env: []string{"PODNOTIFY_LISTEN=", "PODNOTIFY_TIMEOUTS_START="}}.mustLoad(t)
	if c.Listen != ":19119" || c.Services[0].Policy.StartTimeout != 90*time.Second {
		t.Errorf("an empty variable counted: %+v", c)
	}
}

// A value given as nothing is a value: a flag can clear what the file says.
func TestEmptyFlagClears(t *testing.T) {
	c := input{args: "--select-container=", file: "services: [{name: a, select: {container: box}}]"}.mustLoad(t)
	if got := c.Services[0].Container; got != "" {
		t.Errorf("select.container is %q", got)
	}
}

// What is in a run-dir beside the services is no service's name.
func TestTakenNames(t *testing.T) {
	dir, err := rundir.Claim(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	names := []string{filepath.Base(dir.Control()), filepath.Base(dir.State())}
	files, err := os.ReadDir(dir.Path)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		names = append(names, f.Name())
	}
	for _, name := range names {
		if _, bad := readName(name); bad == nil {
			t.Errorf("a service may be called %s", name)
		}
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct{ command, want string }{
		{"/usr/bin/redis-server", "redis-server"},
		{"python3.12", "python3-12"},
		{"/opt/My App.SH", "my-app-sh"},
		{"./-x-", "x"},
		{"größe", "gr--e"},
		{"___", ""},
		{strings.Repeat("a", 62) + "-bcd", strings.Repeat("a", 62)},
		{"/usr/bin/lock", "lock-daemon"},
	} {
		if got := nameOf(test.command); got != test.want {
			t.Errorf("nameOf(%q) = %q, want %q", test.command, got, test.want)
		} else if _, bad := readName(got); (bad == nil) != (got != "") {
			t.Errorf("nameOf(%q) = %q is no valid name", test.command, got)
		}
	}
	c := input{mode: Run, command: []string{"/usr/bin/redis-server", "-x"}}.mustLoad(t)
	if s := c.setting(t, "redis-server", "name"); s.Origin.String() != "default" || c.Services[0].Name != "redis-server" {
		t.Errorf("run: %+v", s)
	}
	c = input{mode: Run, command: []string{"sh"}, file: "services: [{name: a}]"}.mustLoad(t)
	if c.Services[0].Name != "a" {
		t.Errorf("run: CMD beat the file: %q", c.Services[0].Name)
	}
}

// UPSTART_JOB is the service's name where a stop is expected and no job named.
func TestJob(t *testing.T) {
	for args, want := range map[string]string{
		"--service a --expect stop":         "a",
		"--service a --expect stop --job b": "b",
		"--service a":                       "",
		"--service a --job b":               "b",
	} {
		if c := (input{args: args}).mustLoad(t); c.Services[0].Job != want {
			t.Errorf("%s: job %q, want %q", args, c.Services[0].Job, want)
		}
	}
}

const several = `services:
  - {name: a, timeouts: {start: 1s}}
  - {name: b}
`

func TestSeveralServices(t *testing.T) {
	c := input{args: "--service b --timeouts-start 7s", env: []string{"PODNOTIFY_TIMEOUTS_STOP=8s"}, file: several}.mustLoad(t)
	if len(c.Services) != 2 {
		t.Fatalf("%d services", len(c.Services))
	}
	a, b := c.Services[0].Policy, c.Services[1].Policy
	if a.StartTimeout != time.Second || a.StopTimeout != 90*time.Second || b.StartTimeout != 7*time.Second || b.StopTimeout != 8*time.Second {
		t.Errorf("a: %+v\nb: %+v", a, b)
	}
	if s := c.setting(t, "a", "timeouts.stop"); s.Origin.String() != "default" {
		t.Errorf("timeouts.stop of a comes from %s", s.Origin)
	}
	if c := (input{file: several}).mustLoad(t); len(c.Services) != 2 {
		t.Errorf("%d services without flags", len(c.Services))
	}
	c = input{mode: Run, args: "--service b", command: []string{"x"}, file: several}.mustLoad(t)
	if len(c.Services) != 1 || c.Services[0].Name != "b" {
		t.Errorf("run: %+v", c.Services)
	}
}

func TestFile(t *testing.T) {
	t.Run("default is absent", func(t *testing.T) { input{args: "--service a"}.mustLoad(t) })
	t.Run("named by variable", func(t *testing.T) {
		c := input{env: []string{"PODNOTIFY_CONFIG=/f.yaml"}, file: "services: [{name: a}]"}.mustLoad(t)
		if s := c.setting(t, "a", "name"); s.Origin.String() != "file /f.yaml:1" {
			t.Errorf("name comes from %s", s.Origin)
		}
	})
	for _, text := range []string{"# nothing\n", "---\n", "listen:\nservices:\n", "services: []\n"} {
		t.Run("empty", func(t *testing.T) {
			c := input{args: "--service a", file: text}.mustLoad(t)
			if c.Listen != ":19119" || len(c.Services) != 1 {
				t.Errorf("%q: %+v", text, c)
			}
		})
	}
	t.Run("aliases", func(t *testing.T) {
		c := input{file: "services:\n  - name: a\n    timeouts: &t {start: 1s}\n  - name: b\n    timeouts: *t\n"}.mustLoad(t)
		if got := c.Services[1].Policy.StartTimeout; got != time.Second {
			t.Errorf("timeouts.start of b is %v", got)
		}
	})
	t.Run("read once", func(t *testing.T) {
		n := 0
		_, err := Load(Sidecar, flagsOf(t, "--service a"), nil, func(string) ([]byte, error) { n++; return nil, fs.ErrNotExist }, nil)
		if err != nil || n != 1 {
			t.Errorf("%d times, %v", n, err)
		}
	})
}

// lines is an error with one message a line, as people see it.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 110)
	for _, test := range []struct {
		name string
		in   input
		want []string
	}{
		// Flags and environment.
		{"no name", input{}, []string{
			`cannot use name (from default): is missing; give the service a name in the file, by --service or by PODNOTIFY_SERVICE`}},
		{"bad name", input{args: "--service Redis_1"}, []string{
			`cannot use name "Redis_1" (from --service): is no name; use lower-case letters, digits and inner hyphens, 63 at most`}},
		{"name of the run-dir", input{args: "--service state"}, []string{
			`cannot use name "state" (from --service): is what podnotify calls a file of its own in the run-dir, beside the directories of the services; choose another, such as state-daemon`}},
		{"name of the run-dir in a file", input{file: "services:\n- name: a\n- name: control\n"}, []string{
			`cannot use name "control" (from /etc/podnotify/podnotify.yaml:3): is what podnotify calls a file of its own in the run-dir, beside the directories of the services; choose another, such as control-daemon`}},
		{"long name", input{args: "--service " + strings.Repeat("a", 64)}, []string{
			`cannot use name "` + strings.Repeat("a", 64) + `" (from --service): has 64 characters; use lower-case letters, digits and inner hyphens, 63 at most`}},
		{"command that makes no name", input{mode: Run, command: []string{"___"}}, []string{
			`cannot use name (from default): is missing; give the service a name in the file, by --service or by PODNOTIFY_SERVICE`}},
		{"port out of range", input{args: "--service a", env: []string{"PODNOTIFY_LISTEN=:99999"}}, []string{
			`cannot use listen ":99999" (from PODNOTIFY_LISTEN): port is out of range; choose one up to 65535`}},
		{"listen without port", input{args: "--service a --listen localhost"}, []string{
			`cannot use listen "localhost" (from --listen): has no port; write localhost:PORT`}},
		{"listen with an empty port", input{args: "--service a --listen localhost:"}, []string{
			`cannot use listen "localhost:" (from --listen): has no port; write localhost:PORT`}},
		{"listen without colon", input{args: "--service a --listen 8080"}, []string{
			`cannot use listen "8080" (from --listen): has no colon before its port; write :8080`}},
		{"listen on a word", input{args: "--service a --listen :http"}, []string{
			`cannot use listen ":http" (from --listen): port is no number`}},
		{"listen on bare IPv6", input{args: "--service a --listen ::1:80"}, []string{
			`cannot use listen "::1:80" (from --listen): is not [HOST]:PORT; put an IPv6 address into brackets, like [::1]:19119`}},
		{"relative run-dir", input{args: "--service a --run-dir run"}, []string{
			`cannot use run-dir "run" (from --run-dir): is no absolute path; start it with /`}},
		{"log level and format", input{args: "--service a --log-level loud --log-format xml"}, []string{
			`cannot use log-level "loud" (from --log-level): is not known here; write debug, info, warn or error`,
			`cannot use log-format "xml" (from --log-format): is not known here; write auto, text or json`}},

		// Durations.
		{"duration without unit", input{args: "--service a --timeouts-start 90"}, []string{
			`cannot use timeouts.start "90" (from --timeouts-start): has no unit; write 90s`}},
		{"negative duration", input{args: "--service a --timeouts-stop=-1s"}, []string{
			`cannot use timeouts.stop "-1s" (from --timeouts-stop): is negative; write 0 for none`}},
		{"no duration", input{args: "--service a --watchdog-interval soon"}, []string{
			`cannot use watchdog.interval "soon" (from --watchdog-interval): is no duration; write it like 100ms, 90s or 1h30m`}},
		{"infinity", input{args: "--service a --timeouts-start infinity"}, []string{
			`cannot use timeouts.start "infinity" (from --timeouts-start): is no duration; write 0 for none`}},
		{"empty duration", input{args: "--service a --timeouts-start="}, []string{
			`cannot use timeouts.start (from --timeouts-start): is empty; write 0 for none`}},

		// Other values.
		{"expect", input{args: "--service a --expect exec"}, []string{
			`cannot use expect "exec" (from --expect): is not known here; write auto, notify, stop, fork, daemon, pidfile or none`}},
		{"access", input{args: "--service a --notify-access some"}, []string{
			`cannot use notify.access "some" (from --notify-access): is not known here; write all, none, main, exec or any`}},
		{"mode", input{args: "--service a --notify-mode 0999"}, []string{
			`cannot use notify.mode "0999" (from --notify-mode): is no mode; write it in octal, like 0666 or 0660`}},
		{"mode beyond permissions", input{args: "--service a --notify-mode 1777"}, []string{
			`cannot use notify.mode "1777" (from --notify-mode): is no mode; write it in octal, like 0666 or 0660`}},
		{"regexp", input{args: "--service a --select-process ("}, []string{
			"cannot use select.process \"(\" (from --select-process): is no regular expression: missing closing ): `(`; see https://pkg.go.dev/regexp/syntax"}},
		{"pid file", input{args: "--service a --select-pidfile x.pid"}, []string{
			`cannot use select.pidfile "x.pid" (from --select-pidfile): is no absolute path; start it with /`}},
		{"signals", input{args: "--service a --signals-kill FOO --signals-reload 65 --watchdog-signal="}, []string{
			`cannot use watchdog.signal (from --watchdog-signal): is empty; leave it out for the default`,
			`cannot use signals.kill "FOO" (from --signals-kill): is no signal; write a name like TERM or a number from 1 to 64`,
			`cannot use signals.reload "65" (from --signals-reload): is no signal; write a name like TERM or a number from 1 to 64`}},
		{"normal exit", input{args: "--service a --respawn-normal-exit 0,256"}, []string{
			`cannot use respawn.normal-exit "0,256" (from --respawn-normal-exit): "256" is neither an exit code nor a signal; write codes from 0 to 255 and names like TERM`}},
		{"limit", input{args: "--service a --respawn-limit=-1"}, []string{
			`cannot use respawn.limit "-1" (from --respawn-limit): is no whole number from 0 on`}},
		{"job", input{env: []string{"PODNOTIFY_SERVICE=a", "PODNOTIFY_JOB=x\ny"}}, []string{
			`cannot use job "x\ny" (from PODNOTIFY_JOB): contains a character that cannot be printed`}},

		// Addresses.
		{"address", input{args: "--service a --notify-address run/notify"}, []string{
			`cannot use notify.address "run/notify" (from --notify-address): is neither an absolute path nor an abstract name; start it with / or @`}},
		{"address without name", input{args: "--service a --notify-address @"}, []string{
			`cannot use notify.address "@" (from --notify-address): has no name; write a name behind the @`}},
		{"long address", input{args: "--service a --notify-address /" + long[:107]}, []string{
			`cannot use notify.address "/` + long[:107] + `" (from --notify-address): has 108 bytes, the kernel allows 107; choose a shorter path`}},
		{"long abstract address", input{args: "--service a --notify-address @" + long[:108]}, []string{
			`cannot use notify.address "@` + long[:108] + `" (from --notify-address): has 108 bytes behind the @, the kernel allows 107; choose a shorter name`}},
		{"long default address", input{args: "--service a --run-dir /" + long}, []string{
			`cannot use notify.address "/` + long + `/a/notify" (from default): has 120 bytes, the kernel allows 107; choose a shorter run-dir or name, or set notify.address`}},
		{"shared address", input{file: "services:\n- {name: a, notify: {address: /x}}\n- {name: b, notify: {address: //x}}\n"}, []string{
			`cannot use notify.address "//x" (from ` + DefaultFile + `:3): is the address of service a already; give each service its own`}},
		{"address that is another's default", input{args: "--run-dir /r", file: "services:\n- {name: a}\n- {name: b, notify: {address: /r/a/notify}}\n"}, []string{
			`cannot use notify.address "/r/a/notify" (from ` + DefaultFile + `:3): is the address of service a already; give each service its own`}},

		// Several services.
		{"flag for which of several", input{args: "--timeouts-start 1s", env: []string{"PODNOTIFY_EXPECT=stop"}, file: several}, []string{
			`cannot use expect "stop" (from PODNOTIFY_EXPECT): ` + DefaultFile + ` has 2 services; say which by --service NAME: a, b`,
			`cannot use timeouts.start "1s" (from --timeouts-start): ` + DefaultFile + ` has 2 services; say which by --service NAME: a, b`}},
		{"none of several", input{args: "--service c", file: several}, []string{
			`cannot use name "c" (from --service): no such service in ` + DefaultFile + `; it has a, b`}},
		{"run with several", input{mode: Run, command: []string{"x"}, file: several}, []string{
			`cannot use config "` + DefaultFile + `" (from default): has 2 services, and run starts one; say which by --service NAME: a, b`}},
		{"same name twice", input{file: "services:\n- {name: a}\n- {name: a}\n"}, []string{
			`cannot use name "a" (from ` + DefaultFile + `:3): is the name of another service already (from ` + DefaultFile + `:2); give each service its own`}},
		{"service without name", input{file: "services:\n- {name: a}\n- {expect: stop}\n"}, []string{
			`cannot use name (from ` + DefaultFile + `:3): is missing; give the service a name in the file, by --service or by PODNOTIFY_SERVICE`}},

		// The file itself.
		{"absent", input{args: "--config /no.yaml --service a"}, []string{
			`cannot use config "/no.yaml" (from --config): file does not exist`}},
		{"absent, by variable", input{args: "--service a", env: []string{"PODNOTIFY_CONFIG=/no.yaml"}}, []string{
			`cannot use config "/no.yaml" (from PODNOTIFY_CONFIG): file does not exist`}},
		{"syntax", input{args: "--config /f.yaml", file: "listen: [\n"}, []string{
			`cannot use config "/f.yaml" (from --config): is no YAML: line 1: did not find expected node content`}},
		{"tab", input{args: "--config /f.yaml", file: "services:\n\t- name: a\n"}, []string{
			`cannot use config "/f.yaml" (from --config): is no YAML: line 2: found character that cannot start any token; indent line 2 by spaces, not by a tab`}},
		{"two documents", input{args: "--config /f.yaml --service a", file: "listen: :1\n---\nlisten: :2\n"}, []string{
			`cannot use config "/f.yaml" (from --config): line 2: a second YAML document begins; write one document`}},
		{"not a mapping", input{args: "--service a", file: "- x\n"}, []string{
			`cannot use config (from ` + DefaultFile + `:1): is a list, not a mapping; write "KEY: VALUE" lines`}},
		{"unknown key", input{args: "--service a", file: "\nlisten-on: :1\nlitsen: :1\nzzz: 1\n"}, []string{
			`cannot use listen-on (from ` + DefaultFile + `:2): there is no such key; did you mean listen?`,
			`cannot use litsen (from ` + DefaultFile + `:3): there is no such key; did you mean listen?`,
			`cannot use zzz (from ` + DefaultFile + `:4): there is no such key; known here: listen, run-dir, log-level, log-format, services`}},
		{"unknown key of a service", input{file: "services:\n- name: a\n  timeout: {start: 1s}\n  policy:\n    start-timeot: report\n    zzz: 1\n  start-timeout: report\n"}, []string{
			`cannot use timeout (from ` + DefaultFile + `:3): there is no such key; did you mean timeouts?`,
			`cannot use policy.start-timeot (from ` + DefaultFile + `:5): there is no such key; did you mean policy.start-timeout?`,
			`cannot use policy.zzz (from ` + DefaultFile + `:6): there is no such key; known here: start-timeout, reloading, errno, paused, unknown`,
			`cannot use start-timeout (from ` + DefaultFile + `:7): there is no such key; did you mean policy.start-timeout?`}},
		{"key in the wrong place", input{file: "timeouts: {start: 1s}\nservices:\n- name: a\n  listen: :1\n"}, []string{
			`cannot use timeouts (from ` + DefaultFile + `:1): belongs to a service; write it in the list services`,
			`cannot use listen (from ` + DefaultFile + `:4): belongs to podnotify, not to a service; write it at the top of the file`}},
		{"config in the file", input{args: "--service a", file: "config: /x\n"}, []string{
			`cannot use config (from ` + DefaultFile + `:1): there is no such key; known here: listen, run-dir, log-level, log-format, services`}},
		{"wrong types", input{file: "listen: {a: b}\nservices:\n- name: [a]\n  timeouts: 90s\n  respawn: {normal-exit: {a: 1}}\n- b\n"}, []string{
			`cannot use listen (from ` + DefaultFile + `:1): is a mapping, not a single value`,
			`cannot use name (from ` + DefaultFile + `:3): is a list, not a single value`,
			`cannot use timeouts (from ` + DefaultFile + `:4): is a single value, not a mapping; write "KEY: VALUE" lines`,
			`cannot use respawn.normal-exit (from ` + DefaultFile + `:5): is a mapping, not a list`,
			`cannot use services (from ` + DefaultFile + `:6): is a single value, not a mapping; write "KEY: VALUE" lines`,
			`cannot use name (from ` + DefaultFile + `:3): is missing; give the service a name in the file, by --service or by PODNOTIFY_SERVICE`,
			`cannot use name (from ` + DefaultFile + `:6): is missing; give the service a name in the file, by --service or by PODNOTIFY_SERVICE`}},
		{"services is a mapping", input{file: "services: {a: {}}\n"}, []string{
			`cannot use services (from ` + DefaultFile + `:1): is a mapping, not a list; begin each service with "- name: NAME"`}},
		{"nested list", input{file: "services:\n- name: a\n  respawn: {normal-exit: [[1]]}\n"}, []string{
			`cannot use respawn.normal-exit (from ` + DefaultFile + `:3): has a list in its list`}},
		{"key twice", input{args: "--service a", file: "listen: :1\nlisten: :2\n"}, []string{
			`cannot use listen (from ` + DefaultFile + `:2): is there already in line 1; remove one`}},
		{"merge", input{file: "services:\n- &a {name: a}\n- {<<: *a, name: b}\n"}, []string{
			`cannot use << (from ` + DefaultFile + `:3): merging is not supported; write the keys out, or name a whole section by *ALIAS`}},
		{"key with control characters", input{args: "--service a", file: "\"\\e[31mred\": 1\n"}, []string{
			`cannot use \x1b[31mred (from ` + DefaultFile + `:1): there is no such key; known here: listen, run-dir, log-level, log-format, services`}},

		// By each other and by the mode.
		{"fork in a sidecar", input{args: "--service a --expect fork"}, []string{
			`cannot use expect "fork" (from --expect): a container ends with its first process, and a sidecar is not the parent that could follow a fork; keep the daemon in the foreground, or start it by podnotify run`}},
		{"daemon in a sidecar", input{file: "services:\n- name: a\n  expect: daemon\n"}, []string{
			`cannot use expect "daemon" (from ` + DefaultFile + `:3): a container ends with its first process, and a sidecar is not the parent that could follow a fork; keep the daemon in the foreground, or start it by podnotify run`}},

		{"pidfile without a file", input{args: "--service a --expect pidfile"}, []string{
			`cannot use expect "pidfile" (from --expect): no PID file is named; set select.pidfile`}},
		{"pidfile without a file in run", input{mode: Run, command: []string{"a"}, args: "--expect pidfile"}, []string{
			`cannot use expect "pidfile" (from --expect): no PID file is named; set select.pidfile`}},
		{"exec in a sidecar", input{args: "--service a --respawn-mode exec"}, []string{
			`cannot use respawn.mode "exec" (from --respawn-mode): only who has started the daemon can start it again; use podnotify run`}},
		{"pod in run", input{mode: Run, command: []string{"a"}, args: "--respawn-mode pod"}, []string{
			`cannot use respawn.mode "pod" (from --respawn-mode): the exit code of podnotify run is the daemon's own, so it cannot be 79 to restart the pod; use podnotify sidecar, or respawn.mode exec`}},
		{"containerd", input{file: "services:\n- name: a\n  respawn: {mode: containerd}\n"}, []string{
			`cannot use respawn.mode "containerd" (from ` + DefaultFile + `:3): only podnotify-node speaks with containerd; use podnotify-node`}},
		{"containerd in run", input{mode: Run, command: []string{"a"}, args: "--respawn-mode containerd"}, []string{
			`cannot use respawn.mode "containerd" (from --respawn-mode): only podnotify-node speaks with containerd; use podnotify-node`}},
		{"unknown respawn mode", input{args: "--service a --respawn-mode yes --respawn-when no"}, []string{
			`cannot use respawn.mode "yes" (from --respawn-mode): is not known here; write platform, signal, exec, pod or containerd`,
			`cannot use respawn.when "no" (from --respawn-when): is not known here; write on-failure, never or always`}},
		{"gate without port", input{args: "--service a --gate-tcp localhost"}, []string{
			`cannot use gate.tcp "localhost" (from --gate-tcp): has no port; write localhost:PORT`}},
		{"gate on port 0", input{args: "--service a --gate-tcp localhost:0"}, []string{
			`cannot use gate.tcp "localhost:0" (from --gate-tcp): nobody accepts on port 0; write the port of the daemon`}},
		{"fdstore", input{args: "--service a --fdstore-max=-1"}, []string{
			`cannot use fdstore.max "-1" (from --fdstore-max): is no whole number from 0 on`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !strings.Contains(test.in.args, "--run-dir") { // the default depends on who runs the test
				test.in.env = append(test.in.env, "PODNOTIFY_RUN_DIR=/r")
			}
			_, err := test.in.load(t)
			if diff := cmp.Diff(test.want, lines(err)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// What depends on another value is judged by that.
func TestUnknown(t *testing.T) {
	for _, test := range []struct {
		mode Mode
		args string
		want []string
	}{
		{Sidecar, "--policy-unknown reload", []string{`cannot use policy.unknown "reload" (from --policy-unknown): no signal to reload is named; set signals.reload; HUP ends some daemons`}},
		{Sidecar, "--policy-unknown reload --signals-reload HUP", nil},
		{Sidecar, "--policy-unknown ready", nil},
		{Sidecar, "--policy-unknown restart", nil},
		{Sidecar, "--policy-unknown restart --timeouts-start 0", []string{`cannot use policy.unknown "restart" (from --policy-unknown): it is restarted after timeouts.start, and that is never; set timeouts.start`}},
	} {
		_, err := input{mode: test.mode, args: "--service a --run-dir /r " + test.args, command: []string{"a"}}.load(t)
		if diff := cmp.Diff(test.want, lines(err)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.args, diff)
		}
	}
}

// What each way to stand to a daemon can do is accepted, without a warning.
func TestPossible(t *testing.T) {
	for _, test := range []struct {
		mode Mode
		args string
	}{
		{Sidecar, "--expect pidfile --select-pidfile /x"},
		{Sidecar, "--gate-tcp localhost:80"},
		{Sidecar, "--gate-tcp :80"},
		{Sidecar, "--respawn-mode signal"},
		{Sidecar, "--respawn-mode pod"},
		{Run, "--expect fork"},
		{Run, "--expect daemon"},
		{Run, "--expect pidfile --select-pidfile /x"},
		{Run, "--gate-tcp [::1]:80"},
		{Run, "--respawn-mode signal"},
		{Run, "--respawn-mode exec"},
		{Run, "--fdstore-max 3"},
	} {
		c := input{mode: test.mode, args: "--service a --run-dir /r " + test.args, command: []string{"a"}}.mustLoad(t)
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %q", test.args, c.Warnings)
		}
	}
}

// Who may serve a daemon in both ways from one file is told what a sidecar
// leaves out, and is not refused.
func TestFDStoreInSidecar(t *testing.T) {
	c := input{args: "--service a --run-dir /r --fdstore-max 3"}.mustLoad(t)
	want := []string{"fdstore.max of service a means nothing to a sidecar, which could not hand the descriptors back; podnotify run keeps them"}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What is said about respawns, and heeded by no mode that is set, is told.
func TestIdleRespawnSettings(t *testing.T) {
	for _, test := range []struct {
		mode Mode
		args string
		want []string
	}{
		{Run, "--service a --respawn-limit 3 --respawn-delay 1s", []string{"respawn.delay, respawn.limit of service a means nothing with respawn.mode platform, where the platform starts it again; respawn.mode exec heeds it"}},
		{Sidecar, "--service a --respawn-mode signal --respawn-when always --respawn-limit 3", []string{"respawn.when of service a means nothing with respawn.mode signal, where the platform starts it again; podnotify run with respawn.mode exec heeds it"}},
		{Run, "--service a --respawn-mode exec --respawn-when always --respawn-limit 3", nil},
		{Sidecar, "--service a --respawn-mode signal --respawn-limit 3 --respawn-interval 1s", nil},
		{Sidecar, "--service a --policy-unknown restart --respawn-limit 3", nil},
		{Sidecar, "--service a", nil},
	} {
		c := input{mode: test.mode, args: test.args + " --run-dir /r"}.mustLoad(t)
		if diff := cmp.Diff(test.want, c.Warnings); diff != "" {
			t.Errorf("%s: -want +got:\n%s", test.args, diff)
		}
	}
}

func TestSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{"TERM": unix.SIGTERM, "SIGHUP": unix.SIGHUP, "9": unix.SIGKILL, "rtmin+1": 35} {
		if got, err := Signal(text); got != want || err != nil {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":    `cannot use signal "": it is empty; leave it out for the default`,
		"FOO": `cannot use signal "FOO": it is no signal; write a name like TERM or a number from 1 to 64`,
		"0":   `cannot use signal "0": it is no signal; write a name like TERM or a number from 1 to 64`,
	} {
		if _, err := Signal(text); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestErrorTypes(t *testing.T) {
	_, err := input{args: "--service a --listen x --log-level y"}.load(t)
	all, ok := err.(Errors)
	if !ok || len(all) != 2 {
		t.Fatalf("%T with %d", err, len(all))
	}
	one, ok := errors.AsType[Error](err)
	if !ok || one.Key != "listen" || one.Value != "x" || one.Cure == "" || one.Origin.Place() != "--listen" {
		t.Errorf("%+v", one)
	}
}

func TestSignals(t *testing.T) {
	for s, want := range map[string]unix.Signal{
		"": 0, "TERM": 15, "SIGTERM": 15, "term": 15, "15": 15, "KILL": 9, "64": 64,
		"RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX": 64, "RTMAX-1": 63, "RTMIN+30": 64,
	} {
		if got, bad := readSignal(s); bad != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, bad, want)
		}
	}
	for _, s := range []string{"0", "65", "-1", "FOO", "SIG", "RTMIN+31", "RTMIN-1", "RTMIN3", "RTMAX+1", "RTMAX-31", "TERM ", "999"} {
		if got, bad := readSignal(s); bad == nil {
			t.Errorf("%q is accepted as %d", s, got)
		}
	}
}

func TestRunDirDefault(t *testing.T) {
	for _, test := range []struct {
		uid  int
		xdg  string
		want string
	}{
		{0, "/run/user/0", "/run/podnotify"},
		{1000, "/run/user/1000", "/run/user/1000/podnotify"},
		{1000, "", ""},
		{1000, "relative", ""},
	} {
		if got := defaultRunDir(test.uid, test.xdg); got != test.want {
			t.Errorf("uid %d, XDG_RUNTIME_DIR=%q: %q, want %q", test.uid, test.xdg, got, test.want)
		}
	}
	if os.Geteuid() == 0 {
		t.Log("as root: Load's own look at the uid is only seen for uid 0")
	}
	c := input{args: "--service a", env: []string{"XDG_RUNTIME_DIR=/x"}}.mustLoad(t)
	want := defaultRunDir(os.Geteuid(), "/x")
	if c.RunDir != want || c.Services[0].Address != want+"/a/notify" {
		t.Errorf("%q, %q; want %q", c.RunDir, c.Services[0].Address, want)
	}
}

func TestUseRunDir(t *testing.T) {
	c := Config{
		Services: []sidecar.Config{{Name: "a"}, {Name: "b", Address: "@b"}},
		Settings: []Setting{{Key: "run-dir"}, {Service: "a", Key: "notify.address"}, {Service: "b", Key: "notify.address", Value: "@b"}},
	}
	if err := c.UseRunDir("/tmp/x"); err != nil {
		t.Fatal(err)
	}
	if c.RunDir != "/tmp/x" || c.Services[0].Address != "/tmp/x/a/notify" || c.Services[1].Address != "@b" {
		t.Errorf("%+v", c)
	}
	for i, want := range []string{"/tmp/x", "/tmp/x/a/notify", "@b"} {
		if c.Settings[i].Value != want {
			t.Errorf("setting %d is %q, want %q", i, c.Settings[i].Value, want)
		}
	}
	c.Services[0].Address = ""
	want := []string{`cannot use notify.address "/` + strings.Repeat("y", 107) + `/a/notify" (from default): has 117 bytes, the kernel allows 107; choose a shorter run-dir or name, or set notify.address`}
	if diff := cmp.Diff(want, lines(c.UseRunDir("/"+strings.Repeat("y", 107)))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Who talks to a running podnotify is not held up by what is wrong with services.
func TestRunDir(t *testing.T) {
	for _, test := range []struct {
		in   input
		want string
		err  []string
	}{
		{in: input{args: "--run-dir /r/", file: several + "  - {zzz: 1}"}, want: "/r"},
		{in: input{env: []string{"PODNOTIFY_RUN_DIR=/e"}}, want: "/e"},
		{in: input{file: "run-dir: /f\nlisten: bad\n"}, want: "/f"},
		{in: input{args: "--run-dir r"}, err: []string{`cannot use run-dir "r" (from --run-dir): is no absolute path; start it with /`}},
		{in: input{args: "--config /no.yaml"}, err: []string{`cannot use config "/no.yaml" (from --config): file does not exist`}},
	} {
		got, err := RunDir(flagsOf(t, test.in.args), test.in.env, test.in.read)
		if diff := cmp.Diff(test.err, lines(err)); got != test.want || diff != "" {
			t.Errorf("%+v: %q, want %q; errors -want +got:\n%s", test.in, got, test.want, diff)
		}
	}
}

func TestWarnings(t *testing.T) {
	c := input{args: "--service a", env: []string{
		"PODNOTIFY_TIMEOUT_START=1s", "PODNOTIFY_ZZZ=1", "PODNOTIFY_ADDRESS=x:1", "PODNOTIFY_LISTEN=:1", "OTHER=1",
		"PODNOTIFY_SERVICE_HOST=10.0.0.1", "PODNOTIFY_SERVICE_PORT=80", "PODNOTIFY_SERVICE_PORT_HTTP=80",
		"PODNOTIFY_PORT=tcp://10.0.0.1:80", "PODNOTIFY_PORT_80_TCP_ADDR=10.0.0.1", "PODNOTIFY_X_SERVICE_HOST=10.0.0.1",
	}}.mustLoad(t)
	want := []string{
		"the variable PODNOTIFY_TIMEOUT_START means nothing to podnotify; did you mean PODNOTIFY_TIMEOUTS_START?",
		"the variable PODNOTIFY_ZZZ means nothing to podnotify",
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A flag and a variable follow from a key by rule, and no two keys share one.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	check := func(name, flag, env, help string) {
		for _, s := range []string{name, "--" + flag, env} {
			if seen[s] {
				t.Errorf("%s is there twice", s)
			}
			seen[s] = true
		}
		if help == "" || strings.HasSuffix(help, ".") {
			t.Errorf("%s has the help %q", name, help)
		}
	}
	for _, k := range processKeys {
		check(k.name, k.flag(), k.env(), k.help)
	}
	for _, k := range serviceKeys {
		check(k.name, k.flag(), k.env(), k.help)
	}
	for _, s := range []string{"timeouts.start", "--timeouts-start", "PODNOTIFY_TIMEOUTS_START", "name", "--service", "PODNOTIFY_SERVICE", "--respawn-max-delay", "PODNOTIFY_RESPAWN_MAX_DELAY"} {
		if !seen[s] {
			t.Errorf("%s is missing", s)
		}
	}
}

func TestGroups(t *testing.T) {
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.Bool("help", false, "")
	flags.String("mode", "", "")
	AddFlags(flags)
	var titles []string
	total := 0
	for _, g := range Groups(flags) {
		titles = append(titles, g.Title)
		g.Flags.VisitAll(func(*pflag.Flag) { total++ })
	}
	if !slices.Equal(titles, []string{"Flags", "Flags of podnotify", "Flags of the service"}) {
		t.Errorf("groups %q", titles)
	}
	if want := 2 + len(processKeys) + len(serviceKeys); total != want {
		t.Errorf("%d flags in groups, want %d", total, want)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"listen", "litsen", 2}, {"same", "same", 0}} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

// FuzzLoad: no file, no environment and no command line makes Load panic, or an error
// span lines; what it accepts is complete, and the same the next time.
func FuzzLoad(f *testing.F) {
	f.Add(several, "", "", false)
	f.Add("listen: 1\nservices: [{name: a, expect: fork, <<: x}]", "", "", false)
	f.Add("services: &a [*a]", "", "", false)
	f.Add("services: [&a {timeouts: *a, name: x}]", "", "", false)
	f.Add("a: &x [1]\n? *x\n: 2\n", "", "", false)
	f.Add("{\xff: \x00", "", "", false)
	f.Add("", "PODNOTIFY_EXPECT=stop\nPODNOTIFY_TIMEOUTS_START=1m30s\nPODNOTIFY_GATE_TCP=[::1]:6379", "service=a\nlisten=:0", true)
	f.Add(several, "PODNOTIFY_RESPAWN_NORMAL_EXIT=0,TERM,255\nPODNOTIFY_SERVICE=redis", "select-process=^redis-server .*$\nnotify-address=@x", false)
	f.Add("services:\n- {name: a}\n- {name: b}\n", "PODNOTIFY_NOTIFY_MODE=0o777\nPODNOTIFY_TIMEOUT_START=1s", "respawn-limit=-1\nwatchdog-signal=SIGRTMIN+3", false)
	f.Fuzz(func(t *testing.T, file, environ, args string, run bool) {
		mode, command := Sidecar, []string(nil)
		if run {
			mode, command = Run, []string{"/usr/sbin/daemon", "-n"}
		}
		flags := pflag.NewFlagSet("fuzz", pflag.ContinueOnError)
		AddFlags(flags)
		for arg := range strings.SplitSeq(args, "\n") {
			name, value, _ := strings.Cut(arg, "=")
			_ = flags.Set(name, value) // or there is none of that name
		}
		env := append([]string{"PODNOTIFY_RUN_DIR=/r"}, strings.Split(environ, "\n")...)
		load := func() (Config, error) {
			return Load(mode, flags, env, func(string) ([]byte, error) { return []byte(file), nil }, command)
		}
		c, err := load()
		again, errAgain := load()
		if fmt.Sprint(c, err) != fmt.Sprint(again, errAgain) {
			t.Errorf("the same gave\n%v, %v\nand then\n%v, %v", c, err, again, errAgain)
		}
		var lines []string
		if err == nil {
			if len(c.Services) == 0 || run && len(c.Services) != 1 {
				t.Errorf("no error and %d services", len(c.Services))
			}
			for _, s := range c.Services {
				if s.Name == "" || s.Address == "" {
					t.Errorf("a service without name or address: %+v", s)
				}
			}
			lines = c.Warnings
		} else {
			for _, e := range err.(Errors) {
				lines = append(lines, e.Error())
			}
		}
		for _, line := range lines {
			if strings.ContainsAny(line, "\n\r\x1b") {
				t.Errorf("not one line: %q", line)
			}
		}
	})
}
