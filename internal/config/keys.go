package config

import (
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// key is one thing that can be configured. Its flag and its variable follow
// from its name by rule, but for the name of a service.
type key[T any] struct {
	name  string // in the file, sections joined by dots
	def   string
	word  string // stands for the value in --help
	help  string
	parse func(into *T, value string) *fault
}

// flag is the key's flag, without the dashes: timeouts.start is timeouts-start.
func (k *key[T]) flag() string { return flagOf(k.name) }

// env is the key's variable: timeouts.start is PODNOTIFY_TIMEOUTS_START.
func (k *key[T]) env() string { return envOf(k.name) }

func flagOf(name string) string {
	if name == "name" {
		return "service"
	}
	return strings.ReplaceAll(name, ".", "-")
}

const envPrefix = "PODNOTIFY_"

func envOf(name string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flagOf(name), "-", "_"))
}

// fileKey is the one process key that a file cannot have.
const fileKey = "config"

// DefaultFile is read if no other file is named, and may be absent.
const DefaultFile = "/etc/podnotify/podnotify.yaml"

// The keys of podnotify itself. run-dir has the default that rundir.go finds.
var processKeys = []key[Config]{
	{"listen", ":19119", "[HOST]:PORT", "where probes are answered",
		into(readTCP, func(c *Config) *string { return &c.Listen })},
	{fileKey, DefaultFile, "FILE", "configuration file; the default one may be absent",
		into(readWord, func(c *Config) *string { return &c.File })},
	{"run-dir", "", "DIR", "directory of the sockets and of what is known across a restart",
		into(readPath, func(c *Config) *string { return &c.RunDir })},
	{"log-level", "info", "LEVEL", "debug, info, warn or error",
		into(readLevel, func(c *Config) *slog.Level { return &c.LogLevel })},
	{"log-format", "auto", "FORMAT", "text, json, or auto: text on a terminal, json elsewhere",
		choice(func(c *Config, i int) { c.LogFormat = logFormats[i] }, logFormats...)},
}

var logFormats = []string{"auto", "text", "json"}

// The keys of a service.
var serviceKeys = []key[sidecar.Config]{
	{"name", "", "NAME", "name of the service; of several, the one that the other flags are about",
		into(readName, func(s *sidecar.Config) *string { return &s.Name })},
	{"expect", "auto", "HOW", "what says that it is ready: auto, notify, stop, fork, daemon, pidfile or none",
		choice(func(s *sidecar.Config, i int) { s.Policy.Expect = lifecycle.Expect(i) }, names[lifecycle.Expect](lifecycle.ExpectNone)...)},
	{"job", "", "NAME", "value of UPSTART_JOB; with expect stop by default the service's name",
		into(readWord, func(s *sidecar.Config) *string { return &s.Job })},

	{"notify.address", "", "ADDRESS", "notify socket: /path or @abstract; by default RUN-DIR/NAME/notify",
		into(readAddress, func(s *sidecar.Config) *string { return &s.Address })},
	{"notify.access", "all", "WHO", "whose messages count: none, main, exec, all or any",
		choice(func(s *sidecar.Config, i int) { s.Access = sidecar.Access(i) }, names[sidecar.Access](sidecar.AccessAny)...)},
	{"notify.mode", "0666", "MODE", "permissions of the notify socket, in octal",
		into(readMode, func(s *sidecar.Config) *fs.FileMode { return &s.Mode })},

	{"select.container", "", "NAME", "container of the service, by its name in Kubernetes",
		into(readWord, func(s *sidecar.Config) *string { return &s.Container })},
	{"select.process", "", "REGEXP", "regular expression on the command line of the service's processes",
		into(readRegexp, func(s *sidecar.Config) **regexp.Regexp { return &s.Process })},
	{"select.pidfile", "", "FILE", "PID file of the service",
		into(readPath, func(s *sidecar.Config) *string { return &s.PIDFile })},

	{"timeouts.start", "90s", "DURATION", "from start to ready; 0: none",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.StartTimeout })},
	{"timeouts.reload", "90s", "DURATION", "from reloading to ready; 0: none",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.ReloadTimeout })},
	{"timeouts.stop", "90s", "DURATION", "from stopping to the end; 0: none",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.StopTimeout })},

	{"watchdog.interval", "0", "DURATION", "WATCHDOG=1 is due within it; 0: none",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.Watchdog })},
	{"watchdog.signal", "ABRT", "SIGNAL", "what a respawn for a missed watchdog sends",
		into(required(readSignal), func(s *sidecar.Config) *unix.Signal { return &s.WatchdogSignal })},

	{"gate.tcp", "", "HOST:PORT", "hold ready until this address has accepted once",
		func(s *sidecar.Config, v string) *fault {
			if v == "" {
				return nil
			}
			s.Policy.Gate = true
			return into(readPeer, func(s *sidecar.Config) *string { return &s.Gate })(s, v)
		}},

	{"policy.start-timeout", "report", "WHAT", "after timeouts.start: report or not-live",
		effect(func(p *lifecycle.Policy) *lifecycle.Effect { return &p.OnStartTimeout }, report, notLive)},
	{"policy.reloading", "keep", "WHAT", "while reloading: keep ready, or not-ready",
		effect(func(p *lifecycle.Policy) *lifecycle.Effect { return &p.OnReload }, keep, notReady)},
	{"policy.errno", "not-ready", "WHAT", "after ERRNO=: not-ready, not-live or ignore",
		effect(func(p *lifecycle.Policy) *lifecycle.Effect { return &p.OnErrno }, notReady, notLive, ignore)},
	{"policy.paused", "not-ready", "WHAT", "while stopped by a signal: not-ready or ignore",
		effect(func(p *lifecycle.Policy) *lifecycle.Effect { return &p.OnPaused }, notReady, ignore)},
	{"policy.unknown", "not-ready", "WHAT", "when podnotify may have missed news: not-ready, ready, reload or restart",
		choice(func(s *sidecar.Config, i int) { s.Policy.OnUnknown = lifecycle.Unknown(i) }, "not-ready", "ready", "reload", "restart")},

	{"signals.kill", "TERM", "SIGNAL", "asks the main process to end",
		into(required(readSignal), func(s *sidecar.Config) *unix.Signal { return &s.KillSignal })},
	{"signals.reload", "", "SIGNAL", "asks the main process to reload",
		into(readSignal, func(s *sidecar.Config) *unix.Signal { return &s.ReloadSignal })},

	{"respawn.mode", "platform", "HOW", "who starts it again: platform, signal, exec, pod or containerd",
		choice(func(s *sidecar.Config, i int) { s.Policy.Respawn.Mode = lifecycle.RespawnMode(i) }, "platform", "signal", "exec", "pod", "containerd")},
	{"respawn.when", "on-failure", "WHEN", "never, on-failure or always",
		choice(func(s *sidecar.Config, i int) { s.Policy.Respawn.When = lifecycle.RespawnWhen(i) }, "on-failure", "never", "always")},
	{"respawn.normal-exit", "", "LIST", "exit codes and signals that are no failure, with commas between them",
		into(readExits, func(s *sidecar.Config) *[]lifecycle.Exit { return &s.Policy.Respawn.Normal })},
	{"respawn.limit", "10", "COUNT", "respawns within respawn.interval; 0: no limit",
		into(readCount, func(s *sidecar.Config) *int { return &s.Policy.Respawn.Limit })},
	{"respawn.interval", "5m", "DURATION", "see respawn.limit; 0: no limit",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.Respawn.Interval })},
	{"respawn.delay", "100ms", "DURATION", "before the first respawn; doubles",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.Respawn.Delay })},
	{"respawn.max-delay", "30s", "DURATION", "where the doubling ends",
		into(readDuration, func(s *sidecar.Config) *time.Duration { return &s.Policy.Respawn.MaxDelay })},

	{"fdstore.max", "0", "COUNT", "descriptors kept for the service",
		into(readCount, func(s *sidecar.Config) *int { return &s.FDStoreMax })},
}

// into stores what read makes of a value in a field.
func into[T, V any](read func(string) (V, *fault), field func(*T) *V) func(*T, string) *fault {
	return func(t *T, value string) *fault {
		v, bad := read(value)
		if bad == nil {
			*field(t) = v
		}
		return bad
	}
}

// choice stores which of some words a value is.
func choice[T any](store func(t *T, i int), words ...string) func(*T, string) *fault {
	return func(t *T, value string) *fault {
		i := slices.Index(words, value)
		if i < 0 {
			return oneOf(words...)
		}
		store(t, i)
		return nil
	}
}

// effect is choice for what a fact does to the answers.
func effect(field func(*lifecycle.Policy) *lifecycle.Effect, choices ...outcome) func(*sidecar.Config, string) *fault {
	var words []string
	for _, c := range choices {
		words = append(words, c.word)
	}
	return choice(func(s *sidecar.Config, i int) { *field(&s.Policy) = choices[i].effect }, words...)
}

type outcome struct {
	word   string
	effect lifecycle.Effect
}

// The words of the policies.
var (
	report   = outcome{"report", lifecycle.Ignore}
	keep     = outcome{"keep", lifecycle.Ignore}
	ignore   = outcome{"ignore", lifecycle.Ignore}
	notReady = outcome{"not-ready", lifecycle.NotReady}
	notLive  = outcome{"not-live", lifecycle.NotLive}
)

// required refuses the empty value.
func required[V any](read func(string) (V, *fault)) func(string) (V, *fault) {
	return func(s string) (V, *fault) {
		if s == "" {
			var zero V
			return zero, &fault{"is empty", "leave it out for the default"}
		}
		return read(s)
	}
}

// names lists the words of an enumeration from 0 to last.
func names[E interface {
	~uint8
	String() string
}](last E) []string {
	var out []string
	for e := E(0); e <= last; e++ {
		out = append(out, e.String())
	}
	return out
}
