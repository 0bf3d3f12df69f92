package initfile

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/podnotify/podnotify/internal/config"
)

// job is an upstart job on its way onto a page.
type job struct {
	*page
	stanzas []*stanza
}

// job translates an upstart job.
func (p *page) job(path, text string) error {
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && l[0] == '[' {
			return errors.New("it is a drop-in of a systemd unit, not an upstart job; import the whole: systemctl cat NAME > NAME.service")
		} else if l != "" && l[0] != '#' {
			break
		}
	}
	stanzas, err := readJob(text)
	if err != nil {
		return err
	}
	if len(stanzas) == 0 {
		return errors.New("it is empty")
	}
	for _, s := range stanzas {
		if !s.known() {
			return fmt.Errorf("%s: upstart has no stanza %q; is this an upstart job?", s.at, printable(s.text))
		}
	}
	name := jobName(path)
	p.setName(name)
	j := &job{p, stanzas}
	j.main()
	j.expect(name)
	j.kill()
	j.respawn()
	j.others()
	return nil
}

// jobName is what upstart calls a job: its path below /etc/init.
func jobName(path string) string {
	path = strings.TrimSuffix(filepath.ToSlash(path), ".conf")
	if _, below, ok := strings.Cut(path, "/etc/init/"); ok {
		return below
	}
	return filepath.Base(path)
}

// stanzas that mean nothing here, and why. One of two words comes first.
var stanzaReasons = []struct{ reason, stanzas string }{
	{"For people.", "description author version usage emits"},
	{"When to start and stop is the platform's: what is deployed runs.", "start stop manual"},
	{"podnotify has no events.", "export"},
	{"One podnotify serves one instance: deploy one for each.", "instance"},
	{"The environment is the container's: env and envFrom.", "env import"},
	{"What comes before the daemon is an init container, or the image's own start script.", "pre-start security"},
	{"What comes after the start is the container's lifecycle.postStart; podnotify does not wait for it.", "post-start"},
	{"podnotify ends the daemon by signals.kill; a command for it is the container's lifecycle.preStop.", "pre-stop"},
	{"Nothing runs in a container after its daemon; a volume that goes away needs no cleaning.", "post-stop"},
	{"Input, output and the log are the platform's: it keeps what the container writes.", "console"},
	{"The user is the container's: securityContext.runAsUser, runAsGroup.", "setuid setgid"},
	{"The working directory is the container's: workingDir.", "chdir"},
	{"The root file system is the image.", "chroot"},
	{"Limits are the container's: resources, or ulimits of the runtime.", "limit cgroup"},
	{"Scheduling is the node's and the container's.", "nice oom umask"},
	{"The sandbox is the container's: securityContext.", "apparmor"},
	{"upstart would stop it before it runs, for a debugger.", "debug"},
	{"It has no daemon that stays.", "task"},
}

// jobStanzas are the ones that can become something.
const jobStanzas = "exec script expect respawn normal kill reload"

func (s *stanza) known() bool {
	for _, r := range stanzaReasons {
		if slices.Contains(strings.Fields(r.stanzas), s.words[0]) {
			return true
		}
	}
	return slices.Contains(strings.Fields(jobStanzas), s.words[0])
}

// last returns the last stanza that begins with some words, which is the one
// that counts.
func (j *job) last(words ...string) *stanza {
	var found *stanza
	for _, s := range j.stanzas {
		if s.is(words...) {
			found = s
		}
	}
	if found != nil {
		found.done = true
	}
	return found
}

func (s *stanza) from() string { return from(s.at, s.text) }

// main finds the command: the last of exec and script.
func (j *job) main() {
	var s *stanza
	for _, x := range j.stanzas {
		if x.is("exec") || x.is("script") {
			s = x
		}
	}
	switch {
	case s == nil:
		j.warn("there is neither exec nor script, so nothing tells what to run")
		return
	case s.is("script"):
		j.runs("sh -e "+j.name+".sh", s.at)
		j.command = append(j.command, "Put what stands between script and end script into "+j.name+".sh; let it exec the daemon.")
	case s.rest(1) == "":
		j.warnAt(s.at, s.text, "names no command")
	case strings.ContainsAny(s.rest(1), "~`!$^&*()=|\\{}[];\"'<>?"): // upstart's own list
		j.runs("sh -ec "+quote("exec "+s.rest(1)), s.at)
	default:
		j.runs(s.rest(1), s.at)
	}
	s.done = true
}

// expect translates what tells that the daemon is ready.
func (j *job) expect(name string) {
	s := j.last("expect")
	how, why := "none", "no expect: ready when it runs"
	if s != nil {
		how, why = s.arg(1), s.from()
	}
	switch {
	case how == "stop":
		j.set("expect", "stop", why)
		if printable(name) == name {
			j.set("job", name, "UPSTART_JOB")
		}
	case how == "fork" || how == "daemon":
		if j.mode == config.Run {
			j.set("expect", how, why)
			break
		}
		j.set("expect", "none", why)
		j.warnAt(s.at, s.text, "a container ends with its first process, so keep the daemon in the foreground")
	default:
		j.set("expect", "none", why)
		if s != nil && how != "none" {
			j.warnAt(s.at, s.text, "upstart knows stop, fork and daemon")
		}
	}
	if j.task() {
		j.warn("a task does its work and ends, so there is no daemon to be ready; think of an init container or a Job")
	}
}

// task reports whether the job is one, and not a service.
func (j *job) task() bool {
	return slices.ContainsFunc(j.stanzas, func(s *stanza) bool { return s.is("task") })
}

// kill translates how it ends and reloads. upstart's own time-out is 5 s.
func (j *job) kill() {
	stop, why := "5s", "upstart's default"
	if s := j.last("kill", "timeout"); s != nil {
		if n, ok := seconds(s.arg(2)); ok {
			stop, why = n, s.from()
		} else {
			j.warnAt(s.at, s.text, "is no number of seconds")
		}
	}
	j.set("timeouts.stop", stop, why)
	for _, k := range []struct{ stanza, key string }{{"kill", "signals.kill"}, {"reload", "signals.reload"}} {
		s := j.last(k.stanza, "signal")
		if s == nil {
			continue
		}
		if sig, ok := signal(s.arg(2)); ok {
			j.set(k.key, sig, s.from())
		} else {
			j.warnAt(s.at, s.text, "names no signal that is known")
		}
	}
}

// seconds reads a number of seconds.
func seconds(s string) (string, bool) {
	n, ok := count(s)
	return strconv.Itoa(n) + "s", ok
}

// respawn translates respawn, its limit, and normal exit. Of a service every
// end is a failure, also exit code 0; of a task that one is none.
func (j *job) respawn() {
	var on *stanza
	for _, s := range j.stanzas {
		if s.is("respawn") && s.arg(1) != "limit" {
			s.done = true
			switch {
			case len(s.words) > 1:
				j.warnAt(s.at, s.text, "upstart knows respawn alone and respawn limit")
			case on != nil:
				j.drop(s.at, s.text, "The same once more.")
			default:
				on = s
			}
		}
	}
	if j.mode == config.Sidecar || on == nil {
		reason := platformRestarts
		if j.mode == config.Run {
			reason = "Nothing is started again: there is no respawn."
			j.set("respawn.mode", "platform", "no respawn")
		} else {
			j.set("respawn.mode", "platform", "it restarts the container")
		}
		for _, s := range j.stanzas {
			if s == on || s.is("respawn", "limit") || s.is("normal") {
				s.done = true
				j.drop(s.at, s.text, reason)
			}
		}
		return
	}
	j.set("respawn.mode", "exec", "podnotify run starts it again")
	when, why := "always", on.from()
	if j.task() {
		when, why = "on-failure", why+"; a task may end with 0"
	}
	j.set("respawn.when", when, why)
	j.normalExits()
	j.limit()
}

func (j *job) normalExits() {
	var normal, whys []string
	for _, s := range j.stanzas {
		if !s.is("normal", "exit") {
			continue
		}
		s.done = true
		whys = append(whys, s.from())
		for _, w := range s.words[2:] {
			x, ok := exitStatus(w)
			if _, named := exitNames[w]; named || !ok {
				j.warnAt(s.at, s.text, printable(w)+" is neither an exit code nor a signal, so it is left out")
			} else if !slices.Contains(normal, x) {
				normal = append(normal, x)
			}
		}
	}
	if len(whys) > 0 {
		j.set("respawn.normal-exit", "["+strings.Join(normal, ", ")+"]", strings.Join(whys, "; "))
	}
}

// limit: upstart's own is 10 within 5 s, and it does not wait between.
func (j *job) limit() {
	limit, interval, why := "10", "5s", "upstart's default"
	if s := j.last("respawn", "limit"); s != nil {
		n, ok := seconds(s.arg(2))
		i, iok := seconds(s.arg(3))
		switch {
		case s.arg(2) == "unlimited", ok && iok && (n == "0s" || i == "0s"):
			limit, interval, why = "", "0s", s.from()+": no limit"
		case ok && iok:
			limit, interval, why = strings.TrimSuffix(n, "s"), i, s.from()
		default:
			j.warnAt(s.at, s.text, "is neither COUNT INTERVAL nor unlimited")
		}
	}
	if limit != "" {
		j.set("respawn.limit", limit, why)
	}
	j.set("respawn.interval", interval, why)
	j.set("respawn.delay", "0s", "upstart does not wait")
}

// others names every stanza that has become nothing so far.
func (j *job) others() {
	for _, s := range j.stanzas {
		if s.done {
			continue
		}
		i := slices.IndexFunc(stanzaReasons, func(r struct{ reason, stanzas string }) bool {
			return slices.Contains(strings.Fields(r.stanzas), s.words[0])
		})
		switch {
		case i >= 0:
			j.drop(s.at, s.text, stanzaReasons[i].reason)
		case s.is("kill", "timeout"), s.is("kill", "signal"), s.is("reload", "signal"), s.is("respawn", "limit"), s.is("exec"), s.is("script"), s.is("expect"):
			j.drop(s.at, s.text, "A later line replaces it.")
		default:
			j.warnAt(s.at, s.text, "upstart has no such form of this stanza")
		}
	}
}
