// Package config makes a [Config] of flags, environment, file and defaults, in
// that order of precedence, and says of every value where it came from. It owns
// the table of keys and what is wrong with a value; it starts nothing and keeps
// nothing, and nothing but it knows viper.
package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Mode is the way podnotify stands to its daemons.
type Mode int

const (
	Sidecar Mode = iota // beside them; it serves one or more
	Run                 // their parent; it starts exactly one
	Node                // on their host, with containerd; they come and go, see [Container]
)

// Config is all of podnotify's configuration, complete and valid.
type Config struct {
	Listen    string // host:port
	File      string // that was read, or is absent and may be
	RunDir    string // "": the caller makes a fresh directory at start and calls UseRunDir
	LogLevel  slog.Level
	LogFormat string // auto, text or json

	Booted bool // run --booted: make /run/systemd/system; for the command to set, no key is behind it

	Services []sidecar.Config // at least one; in mode Run exactly one

	Settings []Setting // every key, for people
	Warnings []string  // one line each; nothing is wrong with the values
}

// Setting is one value and where it came from.
type Setting struct {
	Service string // "": of podnotify itself
	Key     string
	Value   string // as it was written, or the default that it has come to
	Origin  Origin
}

type (
	service    = sidecar.Config
	serviceKey = key[sidecar.Config]
)

// Load reads the configuration. flags may hold any of those that [AddFlags]
// defines, or be nil; environ is like that of os.Environ, where an empty
// variable counts as unset; command is the CMD of mode Run. readFile is called
// once at most. The error is an [Errors] with everything that is wrong.
func Load(mode Mode, flags *pflag.FlagSet, environ []string, readFile func(string) ([]byte, error), command []string) (Config, error) {
	l := newLoader(mode, flags, environ)
	blocks := l.process(readFile)
	l.services(blocks, command)
	l.strays()
	if len(l.errs) > 0 {
		return Config{}, l.errs
	}
	return l.config, nil
}

// RunDir finds the run-dir alone, for who talks to a running podnotify: what is
// wrong with a service is no reason not to. "" means that podnotify has made a
// fresh directory, which only it knows.
func RunDir(flags *pflag.FlagSet, environ []string, readFile func(string) ([]byte, error)) (string, error) {
	l := newLoader(Sidecar, flags, environ)
	l.process(readFile)
	for _, e := range l.errs {
		if e.Key == "run-dir" || e.Key == fileKey {
			return "", Errors{e}
		}
	}
	return l.config.RunDir, nil
}

type loader struct {
	mode   Mode
	flags  *pflag.FlagSet
	env    map[string]string
	config Config
	errs   Errors
	place  func(key string) string // of mode Node: where a key was written
}

func newLoader(mode Mode, flags *pflag.FlagSet, environ []string) *loader {
	if flags == nil {
		flags = pflag.NewFlagSet("", pflag.ContinueOnError)
	}
	l := &loader{mode: mode, flags: flags, env: map[string]string{}}
	for _, e := range environ {
		if name, value, _ := strings.Cut(e, "="); value != "" {
			l.env[name] = value
		}
	}
	return l
}

func (l *loader) fail(e Error) { l.errs = append(l.errs, e) }

// layers are the values of some keys by precedence, which is viper's business,
// and where each came from, which viper does not tell.
type layers struct {
	viper  *viper.Viper
	origin map[string]Origin
}

// layer stacks defaults, file, environment and flags. The last two are left out
// where they are about another service.
func layer[T any](l *loader, keys []key[T], file map[string]item, outer bool) layers {
	out := layers{viper.New(), map[string]Origin{}}
	fromFile, fromEnv := map[string]any{}, map[string]any{}
	for i := range keys {
		k := &keys[i]
		out.viper.SetDefault(k.name, k.def)
		if it, ok := file[k.name]; ok {
			fromFile[k.name] = it.value
			out.origin[k.name] = Origin{byFile, l.config.File, it.line}
		}
		if !outer {
			continue
		}
		if v, ok := l.env[k.env()]; ok {
			fromEnv[k.name] = v
			out.origin[k.name] = Origin{kind: byEnvironment, name: k.env()}
		}
		if f := l.flags.Lookup(k.flag()); f != nil {
			out.viper.BindPFlag(k.name, f) // fails for a nil flag only
			if f.Changed {
				out.origin[k.name] = Origin{kind: byFlag, name: "--" + k.flag()}
			}
		}
	}
	// viper's own environment is the process's, which is not the one we were given:
	// so ours goes over the file, into the same layer. Merging cannot fail.
	out.viper.MergeConfigMap(fromFile)
	out.viper.MergeConfigMap(fromEnv)
	return out
}

// parse fills into from the values, and notes each as a setting of name.
func parse[T any](l *loader, keys []key[T], values layers, into *T) {
	for i := range keys {
		k := &keys[i]
		v := values.viper.GetString(k.name)
		if bad := k.parse(into, v); bad != nil {
			l.fail(Error{k.name, v, values.origin[k.name], bad.reason, bad.cure})
		}
	}
}

// process reads podnotify's own keys and the file, and returns the file's services.
func (l *loader) process(readFile func(string) ([]byte, error)) []block {
	named := layer(l, processKeys, nil, true)
	l.config.File = named.viper.GetString(fileKey)
	file, services := block{}, []block(nil)
	text, err := readFile(l.config.File)
	switch {
	case err == nil:
		var bad *fault
		r := reader{l.config.File, l.fail}
		if file, services, bad = r.read(text); bad != nil {
			l.fail(Error{fileKey, l.config.File, named.origin[fileKey], bad.reason, bad.cure})
		}
	case errors.Is(err, fs.ErrNotExist) && named.origin[fileKey] == Origin{}:
	default:
		l.fail(Error{fileKey, l.config.File, named.origin[fileKey], reasonOf(err), ""})
	}

	values := layer(l, processKeys, file.items, true)
	if values.viper.GetString("run-dir") == "" {
		values.viper.Set("run-dir", defaultRunDir(os.Geteuid(), l.env["XDG_RUNTIME_DIR"]))
		delete(values.origin, "run-dir")
	}
	parse(l, processKeys, values, &l.config)
	if l.config.RunDir != "" {
		l.config.RunDir = filepath.Clean(l.config.RunDir)
	}
	for i := range processKeys {
		k := processKeys[i].name
		l.config.Settings = append(l.config.Settings, Setting{"", k, values.viper.GetString(k), values.origin[k]})
	}
	return services
}

// reasonOf is an error of reading a file, without the path that the message has
// already.
func reasonOf(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return err.Error()
}

// services reads the services of the file, or the one that needs none.
func (l *loader) services(blocks []block, command []string) {
	broken := len(l.errs) > 0 // the file may name more services than could be read
	chosen := layer(l, serviceKeys, nil, true)
	name := chosen.viper.GetString("name")
	index := 0 // of the service that flags and environment are about
	switch {
	case len(blocks) == 0:
		if broken && name == "" && l.mode == Sidecar {
			return // that a service is missing would be a false trail
		}
		blocks = []block{{}}
	case len(blocks) > 1:
		index = l.choose(blocks, chosen, name)
		if l.mode == Run && index >= 0 {
			blocks, index = blocks[index:index+1], 0
		}
	}

	seen := map[string]Origin{}
	addresses := map[string]string{}
	for i, b := range blocks {
		values := layer(l, serviceKeys, b.items, i == index)
		l.name(values, b, command)
		s := service{}
		parse(l, serviceKeys, values, &s)
		if first, twice := seen[s.Name]; twice && s.Name != "" {
			l.fail(Error{"name", s.Name, values.origin["name"], "is the name of another service already (from " + first.Place() + ")", "give each service its own"})
			continue
		}
		seen[s.Name] = values.origin["name"]
		l.check(&s, values)
		if s.Job == "" && s.Policy.Expect == lifecycle.ExpectStop {
			s.Job = s.Name
			values.viper.Set("job", s.Job)
		}
		for k := range serviceKeys {
			k := serviceKeys[k].name
			l.config.Settings = append(l.config.Settings, Setting{s.Name, k, values.viper.GetString(k), values.origin[k]})
		}
		l.errs = l.config.fillAddress(&s, l.errs)
		if s.Address != "" {
			a := s.Address
			if a[0] == '/' {
				a = filepath.Clean(a)
			}
			if other, taken := addresses[a]; taken {
				l.fail(Error{"notify.address", s.Address, values.origin["notify.address"], "is the address of service " + other + " already", "give each service its own"})
			}
			addresses[a] = s.Name
		}
		l.config.Services = append(l.config.Services, s)
	}
}

// name finds a service's name if nobody has given it one.
func (l *loader) name(values layers, b block, command []string) {
	if values.viper.GetString("name") != "" {
		return
	}
	if l.mode == Run && len(command) > 0 {
		values.viper.Set("name", nameOf(command[0]))
		delete(values.origin, "name")
		return
	}
	if b.line > 0 {
		values.origin["name"] = Origin{byFile, l.config.File, b.line}
	}
}

// choose returns which of several services flags and environment are about, or
// -1: none.
func (l *loader) choose(blocks []block, outer layers, name string) int {
	names := make([]string, len(blocks))
	for i, b := range blocks {
		names[i] = b.items["name"].value
	}
	known := strings.Join(names, ", ")
	i := slices.Index(names, name)
	switch {
	case name != "" && i >= 0:
		return i
	case name != "":
		l.fail(Error{"name", name, outer.origin["name"], "no such service in " + l.config.File, "it has " + known})
		return -1
	}
	for k := range serviceKeys {
		k := serviceKeys[k].name
		if o, set := outer.origin[k]; set {
			l.fail(Error{k, outer.viper.GetString(k), o, l.config.File + " has " + strconv.Itoa(len(blocks)) + " services", "say which by --service NAME: " + known})
		}
	}
	if l.mode == Run {
		l.fail(Error{fileKey, l.config.File, l.origin(fileKey), "has " + strconv.Itoa(len(blocks)) + " services, and run starts one", "say which by --service NAME: " + known})
	}
	return -1
}

// origin is that of a key of podnotify itself.
func (l *loader) origin(key string) Origin {
	for _, s := range l.config.Settings {
		if s.Service == "" && s.Key == key {
			return s.Origin
		}
	}
	return Origin{}
}

// set notes what a default has come to.
func (c *Config) set(service, key, value string) {
	for i := range c.Settings {
		if s := &c.Settings[i]; s.Service == service && s.Key == key {
			s.Value = value
		}
	}
}

// check judges values by each other and by the mode.
func (l *loader) check(s *service, values layers) {
	said := map[string]bool{}
	fail := func(key, reason, cure string) {
		if !said[key] { // once refused, a better value would not be accepted
			l.fail(Error{key, values.viper.GetString(key), values.origin[key], reason, cure})
		}
		said[key] = true
	}
	switch e := s.Policy.Expect; {
	case l.mode == Node && (e == lifecycle.ExpectFork || e == lifecycle.ExpectDaemon):
		fail("expect", "a container ends with its first process, and podnotify-node is not the parent that could follow a fork",
			"keep the daemon in the foreground, or start it by podnotify run")
	case l.mode == Node && e == lifecycle.ExpectPIDFile:
		fail("expect", "podnotify-node reads no file in a container, which its owner could have point anywhere",
			"use notify or none, or podnotify sidecar")
	case l.mode == Sidecar && (e == lifecycle.ExpectFork || e == lifecycle.ExpectDaemon):
		fail("expect", "a container ends with its first process, and a sidecar is not the parent that could follow a fork",
			"keep the daemon in the foreground, or start it by podnotify run")
	case e == lifecycle.ExpectPIDFile && s.PIDFile == "":
		fail("expect", "no PID file is named", "set select.pidfile")
	}
	if s.Policy.OnUnknown == lifecycle.UnknownReload && s.ReloadSignal == 0 {
		fail("policy.unknown", "no signal to reload is named", "set signals.reload; HUP ends some daemons")
	}
	if s.Policy.OnUnknown == lifecycle.UnknownRestart && s.Policy.StartTimeout == 0 {
		fail("policy.unknown", "it is restarted after timeouts.start, and that is never", "set timeouts.start")
	}
	switch {
	case s.Policy.Respawn.Mode == lifecycle.RespawnExec && l.mode != Run:
		fail("respawn.mode", "only who has started the daemon can start it again", "use podnotify run")
	case s.Policy.Respawn.Mode == lifecycle.RespawnContainerd && l.mode != Node:
		fail("respawn.mode", "only podnotify-node speaks with containerd", "use podnotify-node")
	case s.Policy.Respawn.Mode == lifecycle.RespawnPod && l.mode != Sidecar:
		fail("respawn.mode", "the exit code of podnotify run is the daemon's own, so it cannot be 79 to restart the pod",
			"use podnotify sidecar, or respawn.mode exec")
	}
	if l.mode == Node && s.Access == sidecar.AccessAny {
		fail("notify.access", "any would let a container name any process of the host as its own", "use all, or podnotify sidecar")
	}
	if s.Gate != "" && l.mode == Node {
		fail("gate.tcp", "podnotify-node is not in the container's network", "use podnotify sidecar, or a readiness probe of the platform's")
	}
	l.idle(s, values)
	if s.FDStoreMax > 0 && l.mode != Run {
		l.config.Warnings = append(l.config.Warnings, "fdstore.max of service "+s.Name+
			" means nothing to a "+[...]string{Sidecar: "sidecar", Node: "node agent"}[l.mode]+", which could not hand the descriptors back; podnotify run keeps them")
		s.FDStoreMax = 0
	}
}

// idle warns of settings about respawns that respawn.mode has no use for.
func (l *loader) idle(s *service, values layers) {
	r := &s.Policy.Respawn
	keys := []string{"respawn.when", "respawn.normal-exit", "respawn.delay", "respawn.max-delay"}
	switch {
	case r.Mode.Restarts():
		return
	case r.Mode == lifecycle.RespawnPlatform && s.Policy.OnUnknown != lifecycle.UnknownRestart:
		keys = append(keys, "respawn.limit", "respawn.interval")
	}
	cure := "respawn.mode exec heeds it"
	switch l.mode {
	case Node:
		cure = "respawn.mode containerd heeds it"
	case Sidecar:
		cure = "podnotify run with respawn.mode exec heeds it"
	}
	var set []string
	for _, k := range keys {
		if _, ok := values.origin[k]; ok {
			set = append(set, k)
		}
	}
	if len(set) > 0 {
		l.config.Warnings = append(l.config.Warnings, strings.Join(set, ", ")+" of service "+s.Name+
			" means nothing with respawn.mode "+values.viper.GetString("respawn.mode")+", where the platform starts it again; "+cure)
	}
}
