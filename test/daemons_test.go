package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
)

// gated runs a command once a file exists: what can be asked before the daemon
// has begun is asked before, not raced for. The daemon itself is unchanged, and
// is the process that was started.
func gated(file string, argv ...string) []string {
	return append([]string{"sh", "-c", `until [ -e "$0" ]; do sleep 0.02; done; exec "$@"`, file}, argv...)
}

func touch(t *testing.T, file string) {
	t.Helper()
	write(t, file, "")
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// supervised starts podnotify run -- argv, and sees to it that what podnotify
// has started ends with the test, too.
func (p *pod) supervised(t *testing.T, o order, flags []string, argv ...string) *podnotify {
	t.Helper()
	n := p.serve(t, o, "run", slices.Concat(flags, []string{"--"}, argv)...)
	n.endWithTest()
	return n
}

// endWithTest kills the descendants with podnotify, which adopts all orphans.
func (x *process) endWithTest() {
	x.t.Cleanup(func() {
		for range 10 { // whoever was forked meanwhile
			family := x.family()
			if len(family) == 0 {
				return
			}
			for _, st := range family {
				if h, err := proc.Proc.OpenID(st.ID()); err == nil {
					_ = h.Signal(unix.SIGKILL)
					h.Close()
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// family is every descendant of a process of the test's own namespace, the dead
// that nobody has reaped included.
func (x *process) family() []proc.Stat {
	table, err := proc.Proc.Table()
	if err != nil {
		x.t.Error(err)
	}
	var out []proc.Stat
	for pid, st := range table {
		if pid != x.Pid && table.Descends(pid, x.Pid) {
			out = append(out, st)
		}
	}
	return out
}

// change is from one phase to another.
type change struct{ from, to string }

func (c change) String() string { return c.from + " > " + c.to }

var (
	appeared = change{"absent", "starting"}
	readied  = change{"starting", "ready"}
	reloads  = change{"ready", "reloading"}
	reloaded = change{"reloading", "ready"}
	stops    = change{"ready", "stopping"}
	ends     = change{"stopping", "gone"}
)

var transition = regexp.MustCompile(`(?m)^podnotify_transitions_total\{from="(\w+)",service="[^"]*",to="(\w+)"\} (\d+)$`)

// transitions is podnotify_transitions_total.
func (n *podnotify) transitions() map[change]int {
	n.t.Helper()
	_, body := n.get("/metrics")
	out := map[change]int{}
	for _, m := range transition.FindAllStringSubmatch(body, -1) {
		out[change{m[1], m[2]}], _ = strconv.Atoi(m[3])
	}
	return out
}

// untilTransitions waits for exactly these counts.
func (n *podnotify) untilTransitions(want map[change]int) {
	n.t.Helper()
	var got map[change]int
	for end := time.Now().Add(bound); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if got = n.transitions(); reflect.DeepEqual(got, want) {
			return
		}
	}
	n.t.Fatalf("transitions after %v are %v, want %v", bound, got, want)
}

var logged = regexp.MustCompile(`from=(\w+) phase=(\w+) because=("[^"]*"|\S+)`)

// step is one line of the log: what changed, and why.
type step struct {
	change
	because string
}

// history is every change of phase that the log tells of, in order. It goes on
// when /metrics has closed.
func (x *process) history() []step {
	var out []step
	for line := range strings.Lines(x.stderr.String()) {
		if m := logged.FindStringSubmatch(line); m != nil {
			out = append(out, step{change{m[1], m[2]}, strings.Trim(m[3], `"`)})
		}
	}
	return out
}

// facts is what these tests read of /statusz/NAME.
type facts struct {
	Phase                        string
	Paused, Started, Ready, Live bool
	Main                         *struct {
		PID, InnerPID int
		Command       string
	}
	Status   string
	Counters struct {
		Datagrams int
		Dropped   map[string]int
		Pings     int
	}
	LastExit *struct {
		Code   *int
		Signal string
		Reason string
	}
	SignalPermitted *bool
	Warnings        []string
}

func (n *podnotify) facts(service string) facts {
	n.t.Helper()
	code, body := n.get("/statusz/" + service)
	var s facts
	if err := json.Unmarshal([]byte(body), &s); code != 200 || err != nil {
		n.t.Fatalf("GET /statusz/%s is %d, %v: %s", service, code, err, body)
	}
	return s
}

// mainPID is the number of the main process, which must be there.
func (n *podnotify) mainPID(service string) int {
	n.t.Helper()
	s := n.facts(service)
	if s.Main == nil {
		n.t.Fatalf("service %s has no main process", service)
	}
	return s.Main.PID
}

// watched is what a path answers while nobody tells it to: the codes, without
// repetitions.
type watched struct {
	stop  chan struct{}
	done  sync.WaitGroup
	codes []int
}

// watch asks for a path again and again until told to end. It has asked once when
// it returns.
func (n *podnotify) watch(path string) *watched {
	n.t.Helper()
	code, _ := n.get(path)
	w := &watched{stop: make(chan struct{}), codes: []int{code}}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if code, _, err := n.ask(path); err == nil && w.codes[len(w.codes)-1] != code {
				w.codes = append(w.codes, code)
			}
		}
	})
	n.t.Cleanup(func() { w.end() })
	return w
}

// end returns what was answered.
func (w *watched) end() []int {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.done.Wait()
	return w.codes
}

// writes waits until podnotify or the daemon has written something.
func (x *process) writes(want string) {
	x.t.Helper()
	eventually(x.t, fmt.Sprintf("it writes %q", want), func() bool {
		return strings.Contains(x.stdout.String(), want) || strings.Contains(x.stderr.String(), want)
	})
}

// freeUDP is a port of loopback that was free a moment ago.
func freeUDP(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// daemon is a real one, as Debian ships it, and what it was recorded to do.
type daemon struct {
	name    string
	program string // what the process is called
	debian  string // its package
	flags   []string
	argv    func(t *testing.T, dir string) []string

	status    string // STATUS text when ready
	datagrams int    // received until ready; their last is READY=1
	stopping  bool   // it says STOPPING=1

	// what it writes when it catches SIGTERM, where it calls itself ready before
	settled string
	catches bool // it says READY=1 a moment before it catches SIGTERM (again)

	reload     unix.Signal // sent once it is ready; 0: none
	says       string      // what it writes then, where it tells podnotify nothing
	reloaded   map[change]int
	datagrams2 int // received when reloaded
}

func redisBy(supervised string) func(*testing.T, string) []string {
	return func(_ *testing.T, dir string) []string { return redis(dir, supervised) }
}

func collectd(t *testing.T, dir string) []string {
	return []string{"collectd", "-C", write(t, dir+"/collectd.conf", fmt.Sprintf(`
BaseDir %q
PIDFile %q
Interval 1
ReadThreads 1
WriteThreads 1
LoadPlugin uptime
`, dir, dir+"/collectd.pid"))}
}

func named(t *testing.T, dir string) []string {
	return []string{"named", "-f", "-n", "1", "-c", write(t, dir+"/named.conf", fmt.Sprintf(`
options {
	directory %q;
	managed-keys-directory %q;
	pid-file none;
	session-keyfile none;
	listen-on { none; };
	listen-on-v6 { none; };
	recursion no;
	dnssec-validation no;
};
controls { };
`, dir, dir))}
}

func haproxy(t *testing.T, dir string) []string {
	return []string{"haproxy", "-Ws", "-p", dir + "/haproxy.pid", "-f", write(t, dir+"/haproxy.cfg", fmt.Sprintf(`
global
	maxconn 16
	nbthread 1
defaults
	mode tcp
	timeout connect 1s
	timeout client 1s
	timeout server 1s
listen pass
	bind unix@%[1]s/front.sock
	server back unix@%[1]s/back.sock
`, dir))}
}

func unbound(t *testing.T, dir string) []string {
	return []string{"unbound", "-d", "-c", write(t, dir+"/unbound.conf", fmt.Sprintf(`
server:
	interface: 127.0.0.1
	port: %s
	do-tcp: no
	username: ""
	chroot: ""
	directory: %q
	pidfile: ""
	use-syslog: no
	num-threads: 1
	module-config: "iterator"
remote-control:
	control-enable: no
`, freeUDP(t), dir))}
}

func mosquitto(t *testing.T, dir string) []string {
	return []string{"mosquitto", "-c", write(t, dir+"/mosquitto.conf", fmt.Sprintf(`
listener 0 %s/mosquitto.sock
allow_anonymous true
persistence false
log_dest stderr
`, dir))}
}

func freeradius(t *testing.T, dir string) []string {
	conf := dir + "/conf" // it refuses a directory that all may write to
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, conf+"/radiusd.conf", fmt.Sprintf(`
prefix = /usr
libdir = /usr/lib/freeradius
name = radiusd
raddbdir = %[1]s
logdir = %[1]s
pidfile = %[1]s/radiusd.pid
max_requests = 256
security {
}
thread pool {
	start_servers = 1
	max_servers = 1
	min_spare_servers = 1
	max_spare_servers = 1
}
modules {
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[2]s
	}
	authorize {
	}
}
client localhost {
	ipaddr = 127.0.0.1
	secret = testing
}
`, dir, freeUDP(t)))
	return []string{"freeradius", "-f", "-l", "stdout", "-d", conf, "-n", "radiusd"}
}

const (
	redisReady      = "Ready to accept connections"
	redisSettled    = "The server is now ready to accept connections"
	collectdSettled = "Initialization complete"
)

var daemons = []daemon{
	{
		name: "redis-systemd", program: "redis-server", debian: "redis-server",
		flags: []string{"--expect", "notify"}, argv: redisBy("systemd"),
		status: redisReady, datagrams: 3, stopping: true,
	},
	{
		name: "redis-upstart", program: "redis-server", debian: "redis-server",
		flags: []string{"--expect", "stop"}, argv: redisBy("upstart"), settled: redisSettled,
	},
	{ // NOTIFY_SOCKET only: it picks systemd
		name: "redis-auto", program: "redis-server", debian: "redis-server",
		argv:   redisBy("auto"),
		status: redisReady, datagrams: 3, stopping: true,
	},
	{ // both variables: it picks upstart and sends nothing
		name: "redis-auto-both", program: "redis-server", debian: "redis-server",
		flags: []string{"--job", "redis"}, argv: redisBy("auto"), settled: redisSettled,
	},
	{ // expect auto, and a daemon that only knows stops
		name: "redis-auto-upstart", program: "redis-server", debian: "redis-server",
		flags: []string{"--job", "redis"}, argv: redisBy("upstart"), settled: redisSettled,
	},
	{
		name: "collectd", program: "collectd", debian: "collectd-core",
		flags: []string{"--expect", "notify"}, argv: collectd, datagrams: 1, settled: collectdSettled,
	},
	{ // it stops itself only where the job is called like it
		name: "collectd-upstart", program: "collectd", debian: "collectd-core",
		flags: []string{"--expect", "stop", "--service", "metrics", "--job", "collectd"}, argv: collectd, settled: collectdSettled,
	},
	{
		name: "collectd-both", program: "collectd", debian: "collectd-core",
		flags: []string{"--job", "collectd"}, argv: collectd, settled: collectdSettled,
	},
	{
		name: "named", program: "named", debian: "bind9", argv: named,
		status: "running", datagrams: 1, stopping: true,
		reload: unix.SIGHUP, reloaded: map[change]int{reloads: 1, reloaded: 1}, datagrams2: 4,
	},
	{ // RELOADING=1 comes before the first READY=1
		name: "haproxy", program: "haproxy", debian: "haproxy", argv: haproxy, catches: true,
		datagrams: 2, stopping: true,
		reload: unix.SIGUSR2, reloaded: map[change]int{reloads: 1, reloaded: 1}, datagrams2: 5,
	},
	{
		name: "unbound", program: "unbound", debian: "unbound", argv: unbound,
		datagrams: 1, stopping: true,
		reload: unix.SIGHUP, reloaded: map[change]int{reloads: 1, reloaded: 1}, datagrams2: 3,
	},
	{ // it reloads and says nothing about it; as root it becomes another uid
		name: "mosquitto", program: "mosquitto", debian: "mosquitto", argv: mosquitto,
		datagrams: 1,
		reload:    unix.SIGHUP, says: "Reloading config.", datagrams2: 1,
	},
	{
		name: "freeradius", program: "freeradius", debian: "freeradius", argv: freeradius,
		status: "Processing requests", datagrams: 1,
	},
}

// TestDaemons runs real daemons as Debian ships them: not ready before they say
// so, then ready, through a reload, to their end.
func TestDaemons(t *testing.T) {
	t.Parallel()
	for _, d := range daemons {
		t.Run(d.name, func(t *testing.T) {
			need(t, d.program, d.debian)
			// Either SIGTERM takes the way through podnotify, which then knows
			// first, or the daemon gets it from somebody else.
			t.Run("stopped by podnotify", func(t *testing.T) {
				t.Parallel()
				d.live(t, order{}, true)
			})
			t.Run("stopped by others", func(t *testing.T) {
				t.Parallel()
				o := order{}
				if os.Geteuid() == 0 {
					o.uid = nobody
				}
				d.live(t, o, false)
			})
		})
	}
}

func (d *daemon) live(t *testing.T, o order, ours bool) {
	dir := tempDir(t)
	begin := dir + "/begin"
	n := (*pod)(nil).supervised(t, o, append([]string{"--service", "daemon"}, d.flags...), gated(begin, d.argv(t, dir)...)...)
	service := "daemon"
	if i := slices.Index(d.flags, "--service"); i >= 0 {
		service = d.flags[i+1]
	}

	n.expect("/startupz", 503)
	n.expect("/readyz", 503, "start")
	n.expect("/livez", 200)
	w := n.watch("/readyz")
	touch(t, begin)
	n.until("/readyz", 200)

	n.expect("/startupz/"+service, 200)
	n.expect("/readyz/"+service, 200)
	n.expect("/livez/"+service, 200)
	s := n.facts(service)
	if s.Phase != "ready" || !s.Started || !s.Ready || !s.Live || s.Paused {
		t.Errorf("statusz of a ready daemon: %+v", s)
	}
	if s.Status != d.status {
		t.Errorf("status text is %q, want %q", s.Status, d.status)
	}
	if s.Counters.Datagrams != d.datagrams || len(s.Counters.Dropped) != 0 {
		t.Errorf("%d datagrams, dropped %v; want %d, none dropped", s.Counters.Datagrams, s.Counters.Dropped, d.datagrams)
	}
	pid := s.Main.PID
	if name := field(pid, "Name"); name != d.program || !strings.HasPrefix(s.Main.Command, d.program) {
		t.Errorf("main process %d is %q, its command %q; want %s", pid, name, s.Main.Command, d.program)
	}
	if parent := field(pid, "PPid"); parent != strconv.Itoa(n.Pid) {
		t.Errorf("parent of the main process is %s, want podnotify %d", parent, n.Pid)
	}
	if state := field(pid, "State"); strings.HasPrefix(state, "T") {
		t.Errorf("ready, and its state is %s", state)
	}
	want := map[change]int{appeared: 1, readied: 1}
	n.untilTransitions(want)

	if d.reload != 0 {
		n.signal(d.reload)
		n.writes(d.says)
		for c, times := range d.reloaded {
			want[c] = times
		}
		eventually(t, fmt.Sprintf("%d datagrams after the reload", d.datagrams2), func() bool {
			s = n.facts(service)
			return s.Counters.Datagrams == d.datagrams2
		})
		n.untilTransitions(want)
		if s = n.facts(service); s.Phase != "ready" || s.Main == nil || s.Main.PID != pid || s.Status != d.status || len(s.Counters.Dropped) != 0 {
			t.Errorf("statusz of a reloaded daemon that was process %d: %+v", pid, s)
		}
	}
	n.writes(d.settled)
	if codes := w.end(); !slices.Equal(codes, []int{503, 200}) {
		t.Errorf("/readyz was %v, want 503 until ready and 200 from then on", codes)
	}

	if d.catches {
		eventually(t, "it catches SIGTERM", func() bool { return catches(pid, unix.SIGTERM) })
	}
	finish := []step{{stops, "stop asked"}, {ends, "end seen"}}
	if ours {
		n.signal(unix.SIGTERM)
	} else {
		if finish[0].because = "STOPPING=1"; !d.stopping {
			finish = []step{{change{"ready", "gone"}, "end seen"}}
		}
		h, err := proc.Proc.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	if code := n.exit(); code != 0 {
		t.Errorf("exit code %d, want the daemon's own, 0", code)
	}
	if got := n.history(); len(got) < 2 || !slices.Equal(got[len(got)-len(finish):], finish) {
		t.Errorf("phases were %v, want them to end with %v", got, finish)
	}
	if left := n.family(); len(left) != 0 {
		t.Errorf("left behind: %+v", left)
	}
}

// TestDaemonAtOnce starts daemons without waiting for anything, as everybody
// does: their first word or stop must not be missed.
func TestDaemonAtOnce(t *testing.T) {
	t.Parallel()
	need(t, "redis-server", "redis-server")
	for expect, how := range map[string]string{"notify": "systemd", "stop": "upstart", "auto": "auto"} {
		t.Run(expect, func(t *testing.T) {
			t.Parallel()
			for range 5 {
				dir := tempDir(t)
				n := (*pod)(nil).supervised(t, order{}, []string{"--expect", expect}, redis(dir, how)...)
				n.until("/readyz/redis-server", 200)
				n.untilTransitions(map[change]int{appeared: 1, readied: 1})
				n.writes(redisSettled)
				n.signal(unix.SIGTERM)
				if code := n.exit(); code != 0 {
					t.Fatalf("exit code %d, want 0", code)
				}
			}
		})
	}
}

// TestDaemonWatchdog: a daemon that pings stays live for many intervals.
func TestDaemonWatchdog(t *testing.T) {
	t.Parallel()
	need(t, "freeradius", "freeradius")
	dir := tempDir(t)
	n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "notify", "--service", "radius", "--watchdog-interval", "3s"}, freeradius(t, dir)...)
	n.until("/readyz", 200)
	ready, live := n.watch("/readyz"), n.watch("/livez")
	since := time.Now()
	first := n.facts("radius").Counters.Pings
	// The daemon pings twice an interval.
	eventually(t, "7 pings more, over 3 intervals", func() bool {
		return n.facts("radius").Counters.Pings >= first+7 && time.Since(since) > 9500*time.Millisecond
	})
	if codes := slices.Concat(ready.end(), live.end()); !slices.Equal(codes, []int{200, 200}) {
		t.Errorf("/readyz and /livez were %v, want 200 always", codes)
	}
	n.expect("/metrics", 200, "podnotify_watchdog_pings_total", `podnotify_live{service="radius"} 1`)
	n.signal(unix.SIGTERM)
	if code := n.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// shell is a daemon in the language that most entry points are written in. It
// speaks through systemd-notify, a process that lives for one message. A mark
// is left when systemd-notify has returned.
const shell = `
trap 'systemd-notify RELOADING=1; touch "$0/reloading"; until [ -e "$0/reload" ]; do sleep 0.02; done; systemd-notify --ready --status=reloaded; touch "$0/reloaded"' HUP
trap 'systemd-notify STOPPING=1; exit 7' TERM
systemd-notify --status='shell é starting'; touch "$0/started"
until [ -e "$0/begin" ]; do sleep 0.02; done
systemd-notify --ready --status='Up and running' X_FOO=bar; touch "$0/ready"
while [ -d "$0" ]; do sleep 0.05; done
`

// TestSystemdNotify: what systemd-notify has sent is seen by the very next
// question after it has returned, whoever it ran as.
func TestSystemdNotify(t *testing.T) {
	t.Parallel()
	need(t, "systemd-notify", "systemd")
	uids := map[string]int{"own uid": 0}
	if os.Geteuid() == 0 {
		// As root it sends with its parent's credentials; otherwise its own, and
		// it may be gone when they are looked at.
		uids = map[string]int{"root": 0, "nobody": nobody}
	}
	for who, uid := range uids {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			mark := func(name string) func() bool { return func() bool { return exists(filepath.Join(dir, name)) } }
			n := (*pod)(nil).supervised(t, order{uid: uid}, []string{"--expect", "notify", "--service", "sh", "--policy-reloading", "not-ready"}, "sh", "-c", shell, dir)
			eventually(t, "STATUS sent", mark("started"))
			n.expect("/readyz", 503, "shell é starting")
			pid := n.mainPID("sh")
			w := n.watch("/readyz")
			touch(t, dir+"/begin")
			eventually(t, "READY=1 sent", mark("ready"))
			n.expect("/readyz", 200)
			s := n.facts("sh")
			if s.Status != "Up and running" || s.Main == nil || s.Main.PID != pid || !strings.HasPrefix(s.Main.Command, "sh -c") {
				t.Errorf("statusz of a ready shell that is process %d: %+v", pid, s)
			}
			n.signal(unix.SIGHUP)
			eventually(t, "RELOADING=1 sent", mark("reloading"))
			n.expect("/readyz", 503, "reload")
			touch(t, dir+"/reload")
			eventually(t, "READY=1 sent again", mark("reloaded"))
			n.expect("/readyz", 200)
			if s := n.facts("sh"); s.Status != "reloaded" || s.Main == nil || s.Main.PID != pid {
				t.Errorf("statusz of a reloaded shell: %+v", s)
			}
			n.untilTransitions(map[change]int{appeared: 1, readied: 1, reloads: 1, reloaded: 1})
			if codes := w.end(); !slices.Equal(codes, []int{503, 200, 503, 200}) {
				t.Errorf("/readyz was %v, want 503 200 503 200", codes)
			}
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 7 {
				t.Errorf("exit code %d, want the shell's own, 7", code)
			}
			if strings.Contains(n.stderr.String(), "Failed to notify") {
				t.Error("systemd-notify failed")
			}
		})
	}
}

// catches reports whether a process has a handler for a signal.
func catches(pid int, sig unix.Signal) bool {
	bits, err := strconv.ParseUint(field(pid, "SigCgt"), 16, 64)
	return err == nil && bits>>(sig-1)&1 == 1
}
