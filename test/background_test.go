package test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Here the daemon goes into the background, and CMD is not the daemon.

// daemonizer is a real daemon in the background, as Debian ships it.
type daemonizer struct {
	program, debian string
	expect          string // the one that fits
	argv            func(t *testing.T, dir, pidfile, port string) []string
	late            bool // its first process ends before it listens
	code            int  // its exit code after TERM
}

var daemonizers = []daemonizer{
	{
		program: "nginx", debian: "nginx-light", expect: "fork",
		argv: func(t *testing.T, dir, pidfile, port string) []string {
			return []string{"nginx", "-p", dir, "-e", dir + "/error.log", "-c", write(t, dir+"/nginx.conf", fmt.Sprintf(`
daemon on;
worker_processes 2;
pid %s;
error_log %[2]s/error.log;
events { worker_connections 16; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server { listen 127.0.0.1:%[3]s; }
}
`, pidfile, dir, port))}
		},
	},
	{
		program: "dnsmasq", debian: "dnsmasq-base", expect: "daemon",
		argv: func(_ *testing.T, dir, pidfile, port string) []string {
			return []string{"dnsmasq", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--pid-file=" + pidfile, "--port=" + port,
				"--listen-address=127.0.0.1", "--bind-interfaces", "--user=" + self(), "--group=", "--log-facility=" + dir + "/log"}
		},
	},
	{
		program: "memcached", debian: "memcached", expect: "fork", late: true,
		argv: func(_ *testing.T, _, pidfile, port string) []string {
			return []string{"memcached", "-d", "-u", self(), "-l", "127.0.0.1", "-p", port, "-U", "0", "-P", pidfile}
		},
	},
	{
		program: "redis-server", debian: "redis-server", expect: "fork", late: true,
		argv: func(_ *testing.T, dir, pidfile, port string) []string {
			return []string{"redis-server", "--daemonize", "yes", "--supervised", "no", "--pidfile", pidfile, "--port", port,
				"--bind", "127.0.0.1", "--dir", dir, "--save", "", "--logfile", dir + "/log"}
		},
	},
	{
		program: "haproxy", debian: "haproxy", expect: "fork", code: 143,
		argv: func(t *testing.T, dir, pidfile, port string) []string {
			return []string{"haproxy", "-D", "-p", pidfile, "-f", write(t, dir+"/haproxy.cfg", fmt.Sprintf(`
global
	maxconn 16
	nbthread 1
defaults
	mode tcp
	timeout connect 1s
	timeout client 1s
	timeout server 1s
listen pass
	bind 127.0.0.1:%s
	server back 127.0.0.1:1
`, port))}
		},
	},
	{
		program: "mosquitto", debian: "mosquitto", expect: "fork", late: true,
		argv: func(t *testing.T, dir, pidfile, port string) []string {
			return []string{"mosquitto", "-d", "-c", write(t, dir+"/m.conf", fmt.Sprintf("pid_file %s\nlistener %s 127.0.0.1\nallow_anonymous true\nuser %s\nlog_dest none\n", pidfile, port, self()))}
		},
	},
}

// self is the name of our own user, for daemons that would become another.
func self() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

// port is a free one of 127.0.0.1.
func port(t *testing.T) string {
	t.Helper()
	_, p, err := net.SplitHostPort(free(t, "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// filed is the number in a PID file.
func filed(t *testing.T, file string) int {
	t.Helper()
	var pid int
	eventually(t, "there is a number in "+file, func() bool {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	return pid
}

// TestBackgroundDaemons: real daemons that daemonize, followed by their forks and
// by their PID files. The main process is the one they themselves call so.
func TestBackgroundDaemons(t *testing.T) {
	t.Parallel()
	for _, d := range daemonizers {
		for _, expect := range []string{d.expect, "pidfile"} {
			t.Run(d.program+"/"+expect, func(t *testing.T) {
				t.Parallel()
				need(t, d.program, d.debian)
				dir, port := tempDir(t), port(t)
				pidfile := dir + "/pid"
				flags := []string{"--expect", expect, "--service", "d"}
				if expect == "pidfile" {
					flags = append(flags, "--select-pidfile", pidfile)
				}
				n := (*pod)(nil).supervised(t, order{}, flags, d.argv(t, dir, pidfile, port)...)
				n.until("/readyz", 200)
				s := n.facts("d")
				if pid := filed(t, pidfile); s.Main == nil || s.Main.PID != pid {
					t.Fatalf("main process %+v, want that of the PID file, %d", s.Main, pid)
				}
				if len(amiss(s.Warnings)) > 0 {
					t.Errorf("warnings: %q", s.Warnings)
				}
				eventually(t, "it can be reached", func() bool {
					c, err := net.Dial("tcp", "127.0.0.1:"+port)
					if err != nil {
						if !d.late {
							t.Fatal("it is called ready and cannot be reached: ", err)
						}
						return false
					}
					c.Close()
					return true
				})
				main := hold(t, s.Main.PID)
				n.expect("/startupz", 200)
				n.signal(unix.SIGTERM)
				if code := n.exit(); code != d.code || !main.Ended() {
					t.Errorf("exit code %d, the daemon has ended: %t; want %d, true", code, main.Ended(), d.code)
				}
				if left := n.family(); len(left) > 0 {
					t.Errorf("left behind: %+v", left)
				}
			})
		}
	}
}

// TestBackground: forks are followed, signals go to the daemon, and its end is
// the end of run.
func TestBackground(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	for _, tt := range []struct{ forks, expect string }{{"1", "fork"}, {"-1", "fork"}, {"2", "daemon"}, {"-2", "daemon"}, {"=2", "daemon"}, {"2", "pidfile"}, {"0", "pidfile"}, {"-3", "pidfile"}} {
		t.Run(tt.forks+"/"+tt.expect, func(t *testing.T) {
			t.Parallel()
			for range 10 {
				dir := tempDir(t)
				n := (*pod)(nil).supervised(t, order{}, []string{"--expect", tt.expect, "--select-pidfile", dir + "/pid", "--service", "d"}, prog, tt.forks, dir+"/pid")
				n.until("/readyz", 200)
				s := n.facts("d")
				if pid := filed(t, dir+"/pid"); s.Main == nil || s.Main.PID != pid {
					t.Fatalf("main process %+v, want %d", s.Main, pid)
				}
				n.signal(unix.SIGHUP) // is caught before the first fork
				eventually(t, "HUP reaches the daemon", func() bool { return n.stdout.String() == "HUP\n" })
				n.expect("/readyz", 200)
				if s := n.facts("d"); len(amiss(s.Warnings)) > 0 {
					t.Errorf("warnings: %q", s.Warnings)
				}
				n.signal(unix.SIGTERM)
				if code := n.exit(); code != 7 {
					t.Fatalf("exit code %d, want the daemon's own, 7", code)
				}
			}
		})
	}
}

// TestBackgroundDeath: the daemon is a grandchild, and its death is seen at once
// and exactly; respawning starts CMD again.
func TestBackgroundDeath(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	for _, tt := range []struct{ forks, expect string }{{"1", "fork"}, {"2", "daemon"}, {"2", "pidfile"}} {
		t.Run(tt.expect, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			n := (*pod)(nil).supervised(t, order{}, []string{"--expect", tt.expect, "--select-pidfile", dir + "/pid", "--service", "d", "--respawn-mode", "exec", "--respawn-delay", "0"},
				prog, tt.forks, dir+"/pid")
			for range 3 { // the PID file of the one before is a stale one
				n.until("/readyz", 200)
				old := n.mainPID("d")
				signal(t, hold(t, old), unix.SIGKILL)
				eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old && s.Ready })
				s := n.facts("d")
				if s.LastExit == nil || s.LastExit.Signal != "KILL" {
					t.Errorf("statusz: %+v, want the last killed", s)
				}
				eventually(t, "the PID file names the main process", func() bool { return filed(t, dir+"/pid") == s.Main.PID })
			}
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 7 {
				t.Errorf("exit code %d, want 7", code)
			}
		})
	}
}

// TestBackgroundCrash: the workers of a daemon that was killed are not the daemon.
func TestBackgroundCrash(t *testing.T) {
	t.Parallel()
	need(t, "nginx", "nginx-light")
	d := daemonizers[slices.IndexFunc(daemonizers, func(d daemonizer) bool { return d.program == "nginx" })]
	for _, expect := range []string{"fork", "pidfile"} {
		t.Run(expect, func(t *testing.T) {
			t.Parallel()
			dir, port := tempDir(t), port(t)
			pidfile := dir + "/pid"
			n := (*pod)(nil).supervised(t, order{}, []string{"--expect", expect, "--select-pidfile", pidfile, "--service", "d", "--respawn-mode", "exec", "--respawn-delay", "0"},
				d.argv(t, dir, pidfile, port)...)
			for range 3 {
				n.until("/readyz", 200)
				eventually(t, "it has workers", func() bool { return len(n.family()) == 3 })
				old := n.mainPID("d")
				first := n.family()
				signal(t, hold(t, old), unix.SIGKILL)
				eventually(t, "another is started", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID != old && s.Ready })
				s := n.facts("d")
				for _, st := range first {
					if st.PID == s.Main.PID {
						t.Fatalf("main process %d is a worker of the last one", st.PID)
					}
				}
				if len(amiss(s.Warnings)) > 0 {
					t.Errorf("warnings: %q", s.Warnings)
				}
				eventually(t, "the PID file names the main process", func() bool { return filed(t, pidfile) == n.mainPID("d") })
			}
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		})
	}
}

// TestBackgroundWrongCount: no count wedges anything. Every one ends in words
// that say which would have fitted, and the daemon can be ended.
func TestBackgroundWrongCount(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	for _, tt := range []struct {
		forks, expect string
		ready         bool
		says          string
	}{
		{"0", "fork", false, "no fork was seen: it stays in the foreground"},
		{"0", "daemon", false, "no fork was seen: it stays in the foreground"},
		{"1", "daemon", false, "1 fork was seen where 2 are expected; expect: fork would fit"},
		{"2", "fork", true, "expect: daemon would fit"},
		{"=2", "fork", true, "expect: daemon would fit"},
		{"3", "fork", true, "3 forks were seen where expect: fork expects 1; expect: pidfile would fit"},
		{"3", "daemon", true, "3 forks were seen where expect: daemon expects 2; expect: pidfile would fit"},
	} {
		t.Run(tt.forks+"/"+tt.expect, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			n := (*pod)(nil).supervised(t, order{}, []string{"--expect", tt.expect, "--service", "d", "--timeouts-start", "300ms"}, prog, tt.forks, dir+"/pid")
			pid := filed(t, dir+"/pid")
			main := hold(t, pid)
			if tt.ready {
				n.until("/readyz", 200)
				eventually(t, "status warns", func() bool { return strings.Contains(strings.Join(n.facts("d").Warnings, "\n"), tt.says) })
				n.says(tt.says)
				if w := n.facts("d").Warnings; len(w) != 1 || strings.Count(n.stderr.String(), "would fit") != 1 {
					t.Errorf("warnings %q, want one; log: %s", w, &n.stderr)
				}
			} else {
				n.untilBody("/readyz", 503, tt.says)
				n.expect("/startupz", 503, tt.says)
				n.says("daemon is not ready in time") // once, and why
				if line := lineOf(n.stderr.String(), "daemon is not ready in time"); !strings.Contains(line, tt.says) {
					t.Errorf("the log says %q, want %q", line, tt.says)
				}
			}
			n.until("/livez", 200)
			n.expect("/healthz", 200)
			eventually(t, "the daemon is the main process", func() bool { s := n.facts("d"); return s.Main != nil && s.Main.PID == pid })
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 7 || !main.Ended() {
				t.Errorf("exit code %d, the daemon has ended: %t; want 7, true", code, main.Ended())
			}
		})
	}
}

// lineOf is the line of a text that says something.
func lineOf(text, want string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, want) {
			return line
		}
	}
	return ""
}

// TestBackgroundUnexpected: where CMD is the daemon, its end is the end. What was
// seen is said, and nothing that was not: how often it forked.
func TestBackgroundUnexpected(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	for _, expect := range []string{"auto", "notify", "stop", "none"} {
		for _, forks := range []string{"-1", "-2", "1", "2", "3"} {
			t.Run(expect+"/"+forks, func(t *testing.T) {
				t.Parallel()
				for range 3 {
					x, code := once(t, order{}, []string{"--expect", expect, "--service", "d"}, prog, forks)
					if code != 0 {
						t.Errorf("exit code %d, want that of CMD, 0", code)
					}
					log := x.stderr.String()
					for _, want := range []string{"exited with code 0 and left ", "which is the end where expect: " + expect,
						"set expect: fork (it forks once), daemon (twice) or pidfile (it writes one)"} {
						if strings.Count(log, want) != 1 {
							t.Errorf("run does not say once %q: %s", want, log)
						}
					}
					if !strings.Contains(log, "ending what the daemon left behind") {
						t.Errorf("run does not say that it ends what is left: %s", log)
					}
					if strings.Contains(log, "would fit") {
						t.Errorf("run says what it cannot know: %s", log)
					}
					if left := x.family(); len(left) > 0 {
						t.Errorf("left behind: %+v", left)
					}
				}
			})
		}
	}
}

// dead is the number of a process that has ended and was reaped.
func dead(t *testing.T) int {
	t.Helper()
	x := (*pod)(nil).start(t, order{}, "true")
	x.exit()
	return x.Pid
}

// TestPIDFile: what a PID file names is believed only if it can be the daemon,
// and the reason is shown.
func TestPIDFile(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	older := (*pod)(nil).start(t, order{}, "sleep", "1000") // of nobody's
	for name, tt := range map[string]struct{ text, says string }{
		"dead":     {strconv.Itoa(dead(t)), "does not exist: a leftover of an earlier start"},
		"stranger": {strconv.Itoa(older.Pid), "it is not a process of this service"},
		"first":    {"1", "it is not a process of this service"},
		"text":     {"none", `"none" is no process number`},
		"negative": {"-1", `"-1" is no process number`},
		"zero":     {"0", `"0" is no process number`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			pidfile := write(t, dir+"/pid", tt.text+"\n")
			n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "pidfile", "--select-pidfile", pidfile, "--service", "d", "--timeouts-start", "300ms"},
				"sh", "-c", fmt.Sprintf("until [ -e %s/go ]; do sleep 0.02; done; exec %s -2 %s", dir, prog, pidfile))
			n.says("is not believed")
			n.untilBody("/readyz", 503, "the PID file "+pidfile+" is not believed: ")
			n.expect("/livez", 200)
			if s := n.facts("d"); !strings.Contains(strings.Join(s.Warnings, "\n"), tt.says) {
				t.Errorf("warnings %q, want %q", s.Warnings, tt.says)
			}
			touch(t, dir+"/go")
			n.until("/readyz", 200)
			if pid := filed(t, pidfile); n.mainPID("d") != pid {
				t.Errorf("main process %d, want %d", n.mainPID("d"), pid)
			}
			if s := n.facts("d"); len(amiss(s.Warnings)) > 0 {
				t.Errorf("it is ready by its PID file, and status warns: %q", s.Warnings)
			}
			n.signal(unix.SIGTERM)
			if code := n.exit(); code != 7 {
				t.Errorf("exit code %d, want 7", code)
			}
		})
	}
	t.Run("podnotify itself", func(t *testing.T) {
		t.Parallel()
		pidfile := tempDir(t) + "/pid"
		n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "pidfile", "--select-pidfile", pidfile, "--service", "d", "--timeouts-start", "300ms"},
			"sh", "-c", "echo $PPID >"+pidfile+"; exec sleep 1000")
		n.says("is not believed")
		n.untilBody("/readyz", 503, "the PID file "+pidfile+" is not believed: ")
	})
	t.Run("later", func(t *testing.T) { // no file yet
		t.Parallel()
		dir := tempDir(t)
		n := (*pod)(nil).supervised(t, order{}, []string{"--expect", "pidfile", "--select-pidfile", dir + "/pid", "--service", "d", "--timeouts-start", "1s"},
			"sh", "-c", fmt.Sprintf("until [ -e %s/go ]; do sleep 0.02; done; echo $$ >%[1]s/pid; exec sleep 1000", dir))
		n.expect("/readyz", 503, "no PID file so far")
		n.untilBody("/readyz", 503, "the PID file "+dir+"/pid does not exist, or is empty; forks seen: 0")
		touch(t, dir+"/go")
		n.until("/readyz", 200)
		if s := n.facts("d"); len(amiss(s.Warnings)) > 0 {
			t.Errorf("warnings: %q", s.Warnings)
		}
	})
}

// TestPIDFileSidecar: the same, where the daemon is beside podnotify.
func TestPIDFileSidecar(t *testing.T) {
	t.Parallel()
	prog := compile(t, "background", "-static")
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		p, dir := newPod(t), tempDir(t)
		pidfile := write(t, dir+"/pid", "4000\n")
		if err := os.Chmod(pidfile, 0o666); err != nil {
			t.Fatal(err)
		}
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "pidfile", "--select-pidfile", pidfile)
		n.says("it names process 4000, which does not exist: a leftover of an earlier start")
		n.expect("/readyz", 503)
		d := p.start(t, order{uid: nobody}, prog, "0", pidfile)
		n.until("/readyz", 200)
		if pid := n.mainPID("d"); pid != d.inner() {
			t.Errorf("main process %d, want %d", pid, d.inner())
		}
		d.signal(unix.SIGKILL)
		n.until("/readyz", 503)
		n.untilPhase("gone")
		// The file of the dead one is stale now, and the next one's is not.
		d = p.start(t, order{uid: nobody}, gated(dir+"/go", prog, "0", pidfile)...)
		for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
			n.expect("/readyz", 503)
		}
		touch(t, dir+"/go")
		n.until("/readyz", 200)
		if pid := n.mainPID("d"); pid != d.inner() {
			t.Errorf("main process %d, want %d", pid, d.inner())
		}
	})
	t.Run("a real one", func(t *testing.T) {
		t.Parallel()
		need(t, "nginx", "nginx-light")
		p, dir, port := newPod(t), tempDir(t), port(t)
		pidfile := dir + "/pid"
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "pidfile", "--select-pidfile", pidfile, "--signals-reload", "HUP")
		argv := daemonizers[slices.IndexFunc(daemonizers, func(d daemonizer) bool { return d.program == "nginx" })].argv(t, dir, pidfile, port)
		p.start(t, order{uid: nobody}, argv...)
		n.until("/readyz", 200)
		if pid := filed(t, pidfile); n.mainPID("d") != pid {
			t.Errorf("main process %d, want %d", n.mainPID("d"), pid)
		}
		if code, _, errs := n.command("reload"); code != 0 {
			t.Errorf("reload ends with %d: %s", code, errs)
		}
		n.expect("/readyz", 200)
		if code, _, errs := n.command("stop"); code != 0 {
			t.Errorf("stop ends with %d: %s", code, errs)
		}
		n.expect("/readyz", 503, "no main process")
	})
	t.Run("older", func(t *testing.T) { // one of the service's, but not of this start
		t.Parallel()
		p, dir := newPod(t), tempDir(t)
		old := p.start(t, order{uid: nobody}, prog, "0")
		time.Sleep(30 * time.Millisecond) // start times are counted in hundredths of a second
		d := p.start(t, order{uid: nobody}, prog, "0", dir+"/pid")
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "pidfile", "--select-pidfile", dir+"/pid", "--select-process", "^"+prog)
		n.until("/readyz", 200)
		if pid := n.mainPID("d"); pid != d.inner() {
			t.Errorf("main process %d, want %d", pid, d.inner())
		}
		if err := os.Remove(dir + "/pid"); err != nil {
			t.Fatal(err)
		}
		d.signal(unix.SIGKILL)
		n.untilPhase("gone")
		write(t, dir+"/pid", fmt.Sprint(old.inner()))
		n.says(fmt.Sprintf("it names process %d, which is older than this start of the service", old.inner()))
		n.expect("/readyz", 503)
	})
	t.Run("in its own file system", func(t *testing.T) { // and so is the file
		t.Parallel()
		p := newPod(t)
		// /mnt/var -> /mnt/run, as Debian's /var/run -> /run, is a link that only the daemon has.
		n := p.serve(t, order{uid: nobody}, "sidecar", "--service", "d", "--expect", "pidfile", "--select-pidfile", "/mnt/var/pid")
		d := p.start(t, order{}, "unshare", "-m", "sh", "-c", `mount -t tmpfs -o mode=0777 none /mnt && mkdir -m 0777 /mnt/run && ln -s /mnt/run /mnt/var &&
			exec setpriv --reuid 65532 --regid 65532 --clear-groups "$0" 0 /mnt/var/pid`, prog)
		n.until("/readyz", 200)
		if pid := n.mainPID("d"); pid != d.inner() {
			t.Errorf("main process %d, want %d", pid, d.inner())
		}
	})
}
