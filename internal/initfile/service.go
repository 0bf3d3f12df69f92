package initfile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podnotify/podnotify/internal/config"
)

// service is a systemd unit on its way onto a page.
type service struct {
	*page
	name    unitName
	entries []*entry
	kind    string // Type=, also where it is left out
}

// service translates a systemd unit. The sections below are those of
// systemd.service(5), systemd.kill(5), and StartLimit*= of systemd.unit(5).
func (p *page) service(path, text string) error {
	entries, err := p.readUnit(text)
	if err != nil {
		return err
	}
	u := &service{page: p, name: newUnitName(path), entries: entries}
	name := u.name.prefix
	if u.name.instance != "" {
		name += "-" + u.name.instance
	}
	p.setName(name)
	u.start()
	u.readiness()
	u.timeouts()
	u.signals()
	u.respawn()
	u.descriptors()
	u.others()
	return nil
}

// last returns the assignment that counts of a key, which may have several
// names: the last one that systemd can read.
func last[T any](u *service, read func(string) (T, bool), names ...string) (v T, from *entry) {
	for _, e := range u.entries {
		if !slices.Contains(names, e.name()) {
			continue
		}
		switch got, ok := read(e.value); {
		case ok:
			v, from = got, e
		case !e.done:
			e.done = true
			u.warnAt(e.at, e.String(), "systemd cannot read this value and ignores it")
		}
	}
	if from != nil {
		from.done = true
	}
	return v, from
}

// all returns the assignments of a list. An empty one takes back those before.
func (u *service) all(name string) (out []*entry) {
	for _, e := range u.entries {
		switch {
		case e.name() != name:
		case e.value != "":
			e.done = true
			out = append(out, e)
		default:
			for _, o := range append(out, e) {
				o.done = true
				u.drop(o.at, o.String(), "A later, empty assignment takes it back.")
			}
			out = nil
		}
	}
	return out
}

func text(s string) (string, bool) { return s, true }

func (e *entry) from() string { return from(e.at, e.String()) }

// dropAll notes keys that mean nothing here because of others.
func (u *service) dropAll(reason string, names ...string) {
	for _, e := range u.entries {
		if !e.done && slices.Contains(names, e.name()) {
			e.done = true
			u.drop(e.at, e.String(), reason)
		}
	}
}

// start finds the command.
func (u *service) start() {
	entries := u.all("Service.ExecStart")
	type found struct {
		command
		*entry
	}
	var commands []found
	for _, e := range entries {
		text, left := u.name.expand(e.value)
		list, ok := readCommands(text)
		if !ok {
			u.warnAt(e.at, e.String(), "systemd cannot read this command and ignores it")
			continue
		}
		for _, c := range list {
			commands = append(commands, found{c, e})
		}
		u.unknownSpecifiers(e, left)
	}
	if len(commands) == 0 {
		u.warn("there is no ExecStart=, so nothing tells what to run")
		return
	}
	// podnotify runs one command. Type=oneshot may have several.
	c := commands[len(commands)-1]
	u.explain(c.entry, c.command)
	for _, other := range commands[:len(commands)-1] {
		what := "podnotify runs one command, and this is not the last of them"
		if other.entry == c.entry {
			what = "podnotify runs one command, the last of these"
		}
		u.warnAt(other.at, other.String(), what)
	}
	u.runs(u.environ(c.entry, c.command)+c.command.shell(), c.entry.at)
}

// given are the variables that a command has anyway (systemd.exec(5), "Environment
// variables in spawned processes"), or that no shell is to replace.
var given = []string{"HOME", "LOGNAME", "PATH", "SHELL", "USER", "MAINPID"}

// environ writes what Environment= sets before a command, for a shell, and warns of
// what the command needs and the unit does not set.
func (u *service) environ(at *entry, c command) string {
	var names []string
	values := map[string]string{}
	for _, e := range u.entries {
		if e.name() != "Service.Environment" {
			continue
		}
		if e.value == "" {
			names, values = nil, map[string]string{}
			continue
		}
		text, left := u.name.expand(e.value)
		u.unknownSpecifiers(e, left)
		words, _ := split(text)
		for _, w := range words {
			name, value, ok := strings.Cut(w.text, "=")
			if !ok {
				continue
			}
			if _, again := values[name]; !again {
				names = append(names, name)
			}
			values[name] = value
		}
	}
	var missing []string
	for _, name := range c.variables() {
		if _, ok := values[name]; !ok && !slices.Contains(given, name) && !slices.Contains(missing, "$"+name) {
			missing = append(missing, "$"+name)
		}
	}
	if len(missing) > 0 {
		u.warnAt(at.at, at.String(), "this file does not set "+strings.Join(missing, " and ")+": put what an EnvironmentFile= or the manager sets into the environment")
	}
	if len(names) == 0 {
		return ""
	}
	line := "env "
	for _, name := range names {
		line += quote(name+"="+values[name]) + " "
	}
	return line
}

// runs writes what runs the daemon, above everything else.
func (p *page) runs(line string, at lines) {
	lead := "In the daemon's container (" + at.String() + "):"
	if p.mode == config.Run {
		lead = "Run it by (" + at.String() + "):"
		line = "podnotify run --config FILE -- " + line
	}
	p.command = append(p.command, lead)
	for l := range strings.SplitSeq(line, "\n") {
		p.command = append(p.command, "  "+clean(l))
	}
}

// explain tells what the prefixes of a command did and nobody does here.
func (u *service) explain(e *entry, c command) {
	for _, x := range []struct{ prefix, what string }{
		{"@", "the prefix @ gives the program another argv[0]; here it keeps its own"},
		{"-", "the prefix - takes a failed exit for a good one; here it is a failure"},
		{"+", "the prefix + keeps the command from User= and the sandbox; here the container decides"},
		{"!", "the prefix ! keeps the command from User=; here the container decides"},
		{"|", "the prefix | runs the command by the user's shell; here it runs by itself"},
	} {
		if strings.Contains(c.prefixes, x.prefix) {
			u.warnAt(e.at, e.String(), x.what)
		}
	}
	if len(c.argv()) > 0 && strings.HasPrefix(c.argv()[0], "$") {
		u.warnAt(e.at, e.String(), "systemd does not replace a variable in the place of the program")
	}
}

func (u *service) unknownSpecifiers(e *entry, left []string) {
	if len(left) == 0 {
		return
	}
	u.warnAt(e.at, e.String(), "write here what "+strings.Join(left, " and ")+" would stand for")
}

// readiness translates Type= and what belongs to it.
func (u *service) readiness() {
	kind, from := last(u, oneOf("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"), "Service.Type")
	why := "Type= left out: simple"
	hasBus := slices.ContainsFunc(u.entries, func(e *entry) bool { return e.name() == "Service.BusName" && e.value != "" })
	switch {
	case from != nil:
		why = from.from()
	case hasBus:
		kind, why = "dbus", "Type= left out, with BusName=: dbus"
	case len(u.command) == 0:
		kind, why = "oneshot", "Type= left out, without ExecStart=: oneshot"
	default:
		kind = "simple"
	}
	u.kind = kind
	pidfile, pidfrom := last(u, text, "Service.PIDFile")
	if pidfrom != nil && pidfile == "" {
		u.drop(pidfrom.at, pidfrom.String(), "Empty: it takes back what stood before.")
		pidfrom = nil
	}
	switch kind {
	case "notify", "notify-reload":
		u.set("expect", "notify", why)
	case "forking":
		u.forking(pidfile, pidfrom, from)
		pidfrom = nil
	default:
		u.set("expect", "none", why)
		switch kind {
		case "oneshot":
			u.warnType(from, why, "it does its work and ends, so there is no daemon to be ready; think of an init container or a Job")
		case "dbus":
			u.warnType(from, why, "systemd waits for a name on the bus; podnotify does not look there, and says ready as soon as it runs")
		}
	}
	if pidfrom != nil {
		u.drop(pidfrom.at, pidfrom.String(), "The main process is the command itself, or MAINPID= names it; a PID file only counts with Type=forking.")
	}
	u.access()
}

// warnType warns of a type, also of one that nobody has written.
func (u *service) warnType(from *entry, why, what string) {
	if from != nil {
		u.warnAt(from.at, from.String(), what)
		return
	}
	u.warn(why + ": " + what)
}

// forking: systemd goes on when the first process has ended. With a PID file it
// knows the daemon from it, else it guesses.
func (u *service) forking(pidfile string, from, kind *entry) {
	why := kind.from()
	warn := func(what string) { u.warnAt(kind.at, kind.String(), what) }
	if from != nil {
		path, left := u.name.expand(pidfile)
		if !strings.HasPrefix(path, "/") {
			path = "/run/" + path // as systemd does
		}
		u.set("expect", "pidfile", why)
		u.set("select.pidfile", path, from.from())
		u.unknownSpecifiers(from, left)
		if u.mode == config.Sidecar {
			warn("a container ends with its first process, so keep the daemon in the foreground there")
		}
		return
	}
	if u.mode == config.Sidecar {
		u.set("expect", "none", why)
		warn("a container ends with its first process, so keep the daemon in the foreground; best by a switch that makes it say READY=1, and expect: notify")
		return
	}
	u.set("expect", "fork", why)
	warn("without a PID file, expect: fork is a guess; if the daemon is not ready after timeouts.start, the failing check names the expect that fits")
}

// access translates NotifyAccess=, with systemd's own rule for its default.
func (u *service) access() {
	access, from := last(u, oneOf("none", "main", "exec", "all"), "Service.NotifyAccess")
	var cause string
	if dog, e := last(u, timeout, "Service.WatchdogSec"); e != nil && dog != "0s" {
		cause = "WatchdogSec="
	}
	if n, e := last(u, count, "Service.FileDescriptorStoreMax"); e != nil && n > 0 {
		cause = "FileDescriptorStoreMax="
	}
	if strings.HasPrefix(u.kind, "notify") {
		cause = "Type=" + u.kind
	}
	switch {
	case from != nil && (access != "none" || cause == ""):
		u.set("notify.access", access, from.from())
		if cause == "" && access != "none" && u.mode == config.Run {
			u.warnAt(from.at, from.String(), "podnotify run gives such a daemon no NOTIFY_SOCKET, unless watchdog.interval is set")
		}
	case cause != "":
		why := "systemd's default with " + cause
		if from != nil {
			why = from.from() + " is main with " + cause
		}
		u.set("notify.access", "main", why)
	}
}

// timeouts translates TimeoutStartSec=, TimeoutStopSec=, TimeoutSec= and the
// watchdog.
func (u *service) timeouts() {
	start, from := last(u, timeout, "Service.TimeoutStartSec", "Service.TimeoutSec")
	if from != nil {
		u.set("timeouts.start", start, from.from())
		if strings.HasPrefix(u.kind, "notify") {
			u.set("timeouts.reload", start, "systemd takes the same")
		}
	}
	stop, from := last(u, timeout, "Service.TimeoutStopSec", "Service.TimeoutSec")
	if from != nil {
		u.set("timeouts.stop", stop, from.from())
	}
	if dog, from := last(u, timeout, "Service.WatchdogSec"); from != nil {
		u.set("watchdog.interval", dog, from.from())
	}
	if sig, from := last(u, signal, "Service.WatchdogSignal"); from != nil {
		u.set("watchdog.signal", sig, from.from())
	}
}

// signals translates KillSignal= and what reloads the daemon.
func (u *service) signals() {
	if sig, from := last(u, signal, "Service.KillSignal"); from != nil {
		u.set("signals.kill", sig, from.from())
	}
	reload, from := last(u, signal, "Service.ReloadSignal")
	switch {
	case u.kind == "notify-reload" && from != nil:
		u.set("signals.reload", reload, from.from())
	case u.kind == "notify-reload":
		reload = "HUP"
		u.set("signals.reload", reload, "systemd's default with Type=notify-reload")
	case from != nil:
		reload = ""
		u.drop(from.at, from.String(), "Only Type=notify-reload sends it.")
	}
	const nothing = "podnotify reloads by a signal, and runs no command for it."
	for _, e := range u.all("Service.ExecReload") {
		text, _ := u.name.expand(e.value)
		list, ok := readCommands(text)
		sig := ""
		for _, c := range list {
			if s, kills := c.killed(); kills {
				sig = s
			}
		}
		switch {
		case !ok:
			u.warnAt(e.at, e.String(), "systemd cannot read this command and ignores it")
		case sig == "":
			u.drop(e.at, e.String(), nothing)
		case reload != "" && reload != sig:
			u.warnAt(e.at, e.String(), "podnotify sends one signal to reload, and that is "+reload)
		case reload != "":
			u.drop(e.at, e.String(), "The same signal once more.")
		default:
			reload = sig
			u.set("signals.reload", sig, e.from())
			if len(list) > 1 {
				u.warnAt(e.at, e.String(), nothing[:len(nothing)-1]+"; only the signal is taken")
			}
		}
	}
}

var (
	pacing = []string{
		"Service.RestartSec", "Service.RestartSteps", "Service.RestartMaxDelaySec",
		"Unit.StartLimitIntervalSec", "Unit.StartLimitInterval", "Unit.StartLimitBurst",
		"Service.StartLimitIntervalSec", "Service.StartLimitInterval", "Service.StartLimitBurst",
	}
	statuses = []string{"Service.SuccessExitStatus", "Service.RestartPreventExitStatus", "Service.RestartForceExitStatus"}
)

// respawn translates Restart= and what belongs to it.
func (u *service) respawn() {
	restart, from := last(u, oneOf("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"), "Service.Restart")
	why := "Restart= left out: no"
	if from != nil {
		why = from.from()
	}
	if u.mode == config.Sidecar {
		u.set("respawn.mode", "platform", "it restarts the container")
		if from != nil {
			u.drop(from.at, from.String(), platformRestarts)
		}
		u.dropAll(platformRestarts, append(slices.Clone(pacing), statuses...)...)
		return
	}
	if from == nil || restart == "no" {
		u.set("respawn.mode", "platform", why)
		u.dropAll("Nothing is started again: Restart=no.", append(slices.Clone(pacing), statuses...)...)
		return
	}
	u.set("respawn.mode", "exec", "podnotify run starts it again")
	when := restart
	switch restart {
	case "on-success":
		when = "always"
		u.warnAt(from.at, from.String(), "podnotify cannot leave out failures; always starts it again after these, too")
	case "on-abnormal":
		when = "on-failure"
		u.warnAt(from.at, from.String(), "podnotify's on-failure also starts it again after a failed exit code; list codes that mean no in respawn.normal-exit")
	case "on-abort":
		when = "on-failure"
		u.warnAt(from.at, from.String(), "podnotify's on-failure also starts it again after a failed exit code or a missed watchdog; list codes that mean no in respawn.normal-exit")
	case "on-watchdog":
		when = "never"
		why += "; a missed watchdog always starts it again"
	}
	u.set("respawn.when", when, why)
	u.normalExits(when)
	u.pace()
}

const platformRestarts = "The platform starts the container again: restartPolicy in the pod spec, restart in compose."

// normalExits finds the ends that are no failure. systemd has three lists: of
// what is a good end, of what never restarts and of what always does. With
// Restart=always a good end restarts as well.
func (u *service) normalExits(when string) {
	if when == "never" {
		u.dropAll("Only a missed watchdog starts it again.", statuses...)
		return
	}
	var normal, whys []string
	var taken []*entry
	if when == "on-failure" {
		if u.kind != "oneshot" {
			normal = []string{"HUP", "INT", "PIPE", "TERM"} // is_clean_exit() of systemd
			whys = []string{"systemd's clean signals"}
		}
		for _, e := range u.all("Service.SuccessExitStatus") {
			normal = append(normal, u.exits(e)...)
			taken = append(taken, e)
		}
	} else {
		u.dropAll("It is started again after a good end, too.", "Service.SuccessExitStatus")
	}
	for _, e := range u.all("Service.RestartForceExitStatus") {
		forced := u.exits(e)
		if when == "on-failure" && slices.Contains(forced, "0") {
			u.warnAt(e.at, e.String(), "podnotify's on-failure does not start it again after 0; always does")
		}
		normal = slices.DeleteFunc(normal, func(x string) bool { return slices.Contains(forced, x) })
		taken = append(taken, e)
	}
	for _, e := range u.all("Service.RestartPreventExitStatus") {
		normal = append(normal, u.exits(e)...)
		taken = append(taken, e)
	}
	var once []string
	for _, x := range normal {
		if !slices.Contains(once, x) && (when != "on-failure" || x != "0") { // 0 is no failure anyway
			once = append(once, x)
		}
	}
	for _, e := range taken {
		if len(once) == 0 {
			u.drop(e.at, e.String(), "It makes no difference to what starts it again.")
		}
		whys = append(whys, e.from())
	}
	if len(once) > 0 {
		u.set("respawn.normal-exit", "["+strings.Join(once, ", ")+"]", strings.Join(whys, "; "))
	}
}

// exits reads a list of codes and signals.
func (u *service) exits(e *entry) (out []string) {
	for _, w := range strings.Fields(e.value) {
		x, ok := exitStatus(w)
		if !ok {
			u.warnAt(e.at, e.String(), "what "+printable(w)+" means is not known, so it is left out")
			continue
		}
		out = append(out, x)
	}
	return out
}

// pace translates how often and how fast. systemd's limit counts starts within a
// window that begins with the first of them, which is how podnotify counts
// respawns; and its delay stays the same, unless RestartSteps= lets it grow.
func (u *service) pace() {
	limit, interval := "5", "10s"
	limitWhy, intervalWhy := "systemd's default", "systemd's default"
	burst, from := last(u, count, "Unit.StartLimitBurst", "Service.StartLimitBurst")
	if from != nil {
		limit, limitWhy = fmt.Sprint(burst), from.from()
	}
	span, spanFrom := last(u, timeout, "Unit.StartLimitIntervalSec", "Unit.StartLimitInterval", "Service.StartLimitIntervalSec", "Service.StartLimitInterval")
	if spanFrom != nil {
		interval, intervalWhy = span, spanFrom.from()
	}
	if from != nil && burst == 0 {
		interval = "0s"
		intervalWhy = "StartLimitBurst=0: no limit"
		if spanFrom != nil {
			intervalWhy = spanFrom.from() + "; " + intervalWhy
		}
	}
	u.set("respawn.limit", limit, limitWhy)
	u.set("respawn.interval", interval, intervalWhy)

	delay, delayWhy := 100*time.Millisecond, "systemd's default"
	if d, from := last(u, pause, "Service.RestartSec"); from != nil {
		delay, delayWhy = d, from.from()
	}
	longest, longestWhy := delay, "the delay does not grow"
	steps, stepsFrom := last(u, count, "Service.RestartSteps")
	most, mostFrom := last(u, pause, "Service.RestartMaxDelaySec")
	switch {
	case stepsFrom != nil && mostFrom != nil && steps > 0 && most > delay:
		longest, longestWhy = most, mostFrom.from()
		u.warnAt(stepsFrom.at, stepsFrom.String(), "systemd reaches the longest delay in so many steps; podnotify doubles it each time")
	default:
		for _, e := range []*entry{stepsFrom, mostFrom} {
			if e != nil {
				u.drop(e.at, e.String(), "The delay only grows with both RestartSteps= and RestartMaxDelaySec=, and to more than RestartSec=.")
			}
		}
	}
	u.set("respawn.delay", duration(delay), delayWhy)
	u.set("respawn.max-delay", duration(longest), longestWhy)
}

// descriptors translates the descriptor store.
func (u *service) descriptors() {
	n, from := last(u, count, "Service.FileDescriptorStoreMax")
	switch {
	case from == nil:
	case u.mode == config.Sidecar:
		u.drop(from.at, from.String(), "A sidecar cannot hand descriptors back, because it does not start the daemon.")
	default:
		u.set("fdstore.max", fmt.Sprint(n), from.from())
	}
}

// others names every line that has become nothing so far.
func (u *service) others() {
	for _, e := range u.entries {
		if e.done {
			continue
		}
		reason, known := reasonFor(e)
		switch {
		case slices.Contains(translated, e.name()):
			u.drop(e.at, e.String(), "A later line replaces it.")
		case known:
			u.drop(e.at, e.String(), reason)
		default:
			u.warnAt(e.at, e.String(), "podnotify knows no "+printable(e.key)+"= in ["+printable(e.section)+"]; is it misspelt?")
		}
	}
}

// translated are the keys that become something. A line of one that has not is
// one that a later line replaces.
var translated = append(append([]string{
	"Service.Type", "Service.PIDFile", "Service.NotifyAccess", "Service.TimeoutStartSec", "Service.TimeoutStopSec", "Service.TimeoutSec",
	"Service.WatchdogSec", "Service.WatchdogSignal", "Service.KillSignal", "Service.ReloadSignal", "Service.Restart", "Service.FileDescriptorStoreMax",
}, pacing...), statuses...)
