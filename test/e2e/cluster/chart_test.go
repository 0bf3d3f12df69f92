package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// releases of the chart: real daemons, and what each needs to be told.
const (
	redisStop = `
daemon:
  args: [redis-server, --supervised, upstart, --save, "", --bind, "*", --protected-mode, "no"]
  ports: [{name: redis, containerPort: 6379}]
podnotify:
  config:
    expect: stop
    gate: {tcp: "127.0.0.1:6379"} # it stops itself before it listens
`
	redisNotify = `
daemon:
  args: [redis-server, --supervised, systemd, --save, "", --bind, "*", --protected-mode, "no"]
  ports: [{name: redis, containerPort: 6379}]
podnotify:
  config: {expect: notify}
`
	haproxyNotify = `
daemon:
  args: [-Ws, -f, /etc/haproxy/haproxy.cfg]
  ports: [{name: http, containerPort: 8080}]
  volumeMounts: [{name: config, mountPath: /etc/haproxy, readOnly: true}]
volumes: [{name: config, configMap: {name: haproxy}}]
podnotify:
  config: {expect: notify, signals: {reload: USR2}}
`
	haproxyConfig = `
apiVersion: v1
kind: ConfigMap
metadata: {name: haproxy}
data:
  haproxy.cfg: |
    defaults
      mode http
      timeout connect 10s
      timeout client 10m
      timeout http-request 10m
      timeout server 10m
    frontend all
      bind :8080
      http-request return status 200 content-type text/plain string ok
`
	mydaemonSignal = `
daemon:
  args: [-l, ":7070", -g, /greeting/text]
  ports: [{name: line, containerPort: 7070}]
  volumeMounts: [{name: greeting, mountPath: /greeting}]
volumes: [{name: greeting, emptyDir: {}}]
initContainers:
  - name: greeting
    image: podnotify.test/database:1
    command: [sh, -c, "echo hello >/greeting/text"]
    volumeMounts: [{name: greeting, mountPath: /greeting}]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
podnotify:
  config:
    expect: notify
    watchdog: {interval: 3s}
    respawn: {mode: signal}
    timeouts: {stop: 10s} # a hung daemon does not take SIGTERM
`
	mydaemonExec = `
podnotify:
  config:
    respawn: {mode: platform}
  probes:
    liveness: {handler: exec, exec: {periodSeconds: 2, failureThreshold: 2}}
`
)

// TestKubernetes has one cluster for all: to bring it up costs more than most of
// what is tested.
func TestKubernetes(t *testing.T) {
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	helm := helmProgram(t)
	c := New(t)
	s := &suite{Cluster: c, helm: helm, root: root, chart: filepath.Join(root, "charts/podnotify"), client: c.HTTP()}
	s.repository, s.tag = images(t, c, root)
	t.Logf("image %s:%s; chart %s", s.repository, s.tag, s.chart)
	t.Run("all", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *suite){
			"Redis":         testRedis,
			"Haproxy":       testHaproxy,
			"Mydaemon":      testMydaemon,
			"SidecarKilled": testSidecarKilled,
			"Entrypoint":    testEntrypoint,
			"SlowStart":     testSlowStart,
			"Manifests":     testManifests,
			"Injection":     testInjection,
			"Node":          testNode,
			"Examples":      testExamples,
			"Daemons":       testDaemons,
			"Run":           testRun,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, s)
			})
		}
	})
	t.Run("Nothing", func(t *testing.T) { testNothing(t, s) })
}

// ping is a client of redis.
func (r *release) ping(p pod) error {
	conn, err := r.Dial(r.t.Context(), "tcp", p.Status.PodIP+":6379")
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answer := make([]byte, 64)
	if _, err = fmt.Fprint(conn, "PING\r\n"); err != nil {
		return err
	}
	n, err := conn.Read(answer)
	if err == nil && string(answer[:n]) != "+PONG\r\n" {
		err = fmt.Errorf("redis answers %q", answer[:n])
	}
	return err
}

// testRedis: the same image, said to be ready in both ways; an operator's stop
// takes it out and SIGCONT brings it back.
func testRedis(t *testing.T, s *suite) {
	ns := s.namespace(t, "redis")
	for name, values := range map[string]string{"redis-stop": redisStop, "redis-notify": redisNotify} {
		r := s.install(t, ns, name, redis, values)
		p := r.serving(true)
		f := r.facts(p)
		if f.Phase != "ready" {
			t.Errorf("podnotify says %+v of a ready pod", f)
		}
		if err := r.ping(p); err != nil {
			t.Errorf("%s is ready, and its client gets: %v", name, err)
		}
		t.Logf("%s: %v; podnotify says %s, status %q, %d datagrams", name, p, f.Phase, f.Status, f.Counters.Datagrams)

		s.kill(t, "STOP", p.container(name))
		p = r.serving(false)
		_, why := r.ask(p, "/readyz/"+name)
		t.Logf("%s after kill -STOP: %v; %s", name, p, why)
		s.kill(t, "CONT", p.container(name))
		p = r.serving(true)
		if n := p.container(name).RestartCount; n != 0 {
			t.Errorf("%s was restarted %d times", name, n)
		}
		r.helmTest()
	}

	// An upgrade rolls over; nothing of the old pod stays.
	r := &release{suite: s, t: t, namespace: ns, name: "redis-notify"}
	before, err := r.pod()
	if err != nil {
		t.Fatal(err)
	}
	r.Output(t, s.helm, "upgrade", r.name, s.chart, "--namespace", ns, "--reuse-values", "--set", "podAnnotations.note=again", s.kubeconfig())
	r.until("the pod is another", func(p pod) bool { return p.Metadata.UID != before.Metadata.UID })
	p := r.serving(true)
	t.Logf("upgraded: %v", p)
	for _, name := range []string{"redis-stop", "redis-notify"} {
		(&release{suite: s, t: t, namespace: ns, name: name}).uninstall()
		t.Logf("%s: uninstalled, nothing left", name)
	}
}

// helmTest runs the chart's own test.
func (r *release) helmTest() {
	r.t.Helper()
	r.Names(r.t)
	out := r.Output(r.t, r.helm, "test", r.name, "--namespace", r.namespace, "--timeout", "3m", r.kubeconfig())
	if !strings.Contains(out, "Succeeded") {
		r.t.Errorf("helm test %s: %s", r.name, out)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Phase:") {
			r.t.Logf("helm test %s: %s", r.name, strings.TrimSpace(line))
		}
	}
}

// testHaproxy: it says STOPPING and takes its time, since a client is still
// there; the pod is not ready meanwhile, and again when the next haproxy is.
func testHaproxy(t *testing.T, s *suite) {
	ns := s.namespace(t, "haproxy")
	s.Apply(t, haproxyConfig, "--namespace", ns)
	r := s.install(t, ns, "haproxy", haproxy, haproxyNotify)
	p := r.serving(true)
	t.Logf("%v; podnotify says %+v", p, r.facts(p))
	r.helmTest()

	// Half a request keeps it from ending.
	conn, err := s.Dial(t.Context(), "tcp", p.Status.PodIP+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: haproxy\r\n"); err != nil {
		t.Fatal(err)
	}
	s.kill(t, "USR1", p.container("haproxy"))
	p = r.serving(false)
	_, why := r.ask(p, "/readyz/haproxy")
	if !strings.Contains(why, "stopping") {
		t.Errorf("a haproxy that has said STOPPING=1 is not ready because of %q", why)
	}
	t.Logf("after STOPPING=1: %v; %s", p, why)
	if n := p.container("haproxy").RestartCount; n != 0 {
		t.Errorf("haproxy is gone already, restarted %d times", n)
	}
	conn.Close()
	p = r.until("haproxy runs again", func(p pod) bool { return p.container("haproxy").RestartCount == 1 && r.agree(p, true) })
	r.serving(true)
	if n := p.container("podnotify").RestartCount; n != 0 {
		t.Errorf("the sidecar was restarted %d times", n)
	}
	t.Logf("after its end: %v", p)
	r.uninstall()
}

// testMydaemon: its loop hangs, the pings stop, and its container is restarted:
// by podnotify's signal, or by kubelet's exec probe. The sidecar stays.
func testMydaemon(t *testing.T, s *suite) {
	ns := s.namespace(t, "mydaemon")
	r := s.install(t, ns, "mydaemon", mydaemon, mydaemonSignal)
	for _, how := range []string{"respawn.mode signal", "liveness by exec"} {
		p := r.serving(true)
		r.Until(t, "mydaemon pings", func() (bool, string) { f := r.facts(p); return f.Counters.Pings > 0, fmt.Sprint(f) })
		was := p.container("mydaemon")

		// It reads its greeting again on SIGHUP, and nobody writes to this pipe.
		greeting := filepath.Join(s.dir, "root/pods", p.Metadata.UID, "volumes/kubernetes.io~empty-dir/greeting/text")
		if err := os.Remove(greeting); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(greeting, 0o644); err != nil {
			t.Fatal(err)
		}
		s.kill(t, "HUP", was)
		r.Until(t, "mydaemon reloads, which hangs", func() (bool, string) { f := r.facts(p); return f.Phase == "reloading", fmt.Sprint(f) })
		// Its next start is to find a greeting again.
		if err := os.Remove(greeting); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(greeting, []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		r.until("mydaemon's container is restarted", func(p pod) bool { return p.container("mydaemon").RestartCount == 1 })
		p = r.serving(true)
		now := p.container("mydaemon")
		if n := p.container("podnotify").RestartCount; n != 0 || now.ContainerID == was.ContainerID {
			t.Errorf("after a hang: %v", p)
		}
		last := "?"
		if e := now.LastState.Terminated; e != nil {
			last = fmt.Sprintf("%s, exit code %d", e.Reason, e.ExitCode)
		}
		t.Logf("%s: pings stopped, mydaemon's container ended (%s) and is another; %v", how, last, p)
		if how == "respawn.mode signal" {
			r.helmTest()
			before := p.Metadata.UID
			r.Helm("upgrade", mydaemonExec, "--reuse-values")
			r.until("the pod is another", func(p pod) bool { return p.Metadata.UID != before })
		}
	}
	r.uninstall()
}

// testRun: podnotify as the parent of a daemon that goes into the background, in
// the daemon's own container and image.
func testRun(t *testing.T, s *suite) {
	ns := s.namespace(t, "run")
	r := s.install(t, ns, "background", mydaemon, `
daemon:
  command: [/mydaemon, -l, ":7070", -p, /state/mydaemon.pid]
  ports: [{name: line, containerPort: 7070}]
  volumeMounts: [{name: state, mountPath: /state}]
volumes: [{name: state, emptyDir: {}}]
podnotify:
  mode: run
  config:
    expect: fork
    respawn: {mode: exec, when: always, delay: 0s}
`)
	p := r.serving(true)
	was := r.facts(p)
	t.Logf("%v; podnotify says %+v", p, was)
	s.Kubectl(t, "exec", "--namespace", ns, p.Metadata.Name, "--container", "background", "--", "/podnotify-bin/podnotify", "respawn")
	r.Until(t, "another daemon is ready", func() (bool, string) {
		f := r.facts(p)
		return f.Phase == "ready" && f.Main.PID != was.Main.PID, fmt.Sprint(f)
	})
	p = r.serving(true)
	if n := p.container("background").RestartCount; n != 0 {
		t.Errorf("the container was restarted %d times; podnotify run was to start the daemon again", n)
	}
	t.Logf("after podnotify respawn: %v; podnotify says %+v", p, r.facts(p))
	r.uninstall()
}

// testSidecarKilled: with the chart's defaults podnotify may crash again and
// again, and the kubelet too: the daemon is not touched, and its READY=1, which
// it never repeats, is not forgotten.
func testSidecarKilled(t *testing.T, s *suite) {
	ns := s.namespace(t, "killed")
	releases := []*release{s.install(t, ns, "stop", redis, redisStop), s.install(t, ns, "notify", redis, redisNotify)}
	daemons := map[*release]container{}
	for _, r := range releases {
		daemons[r] = r.serving(true).container(r.name)
	}
	// Four times is a back-off of 80 s, after 70 s without podnotify.
	const times = 4
	for n := range times {
		for _, r := range releases {
			p := r.until("the sidecar runs", func(p pod) bool {
				c := p.container("podnotify")
				return c.RestartCount == n && c.State.Running != nil && s.pid(t, c) != 0
			})
			s.kill(t, "KILL", p.container("podnotify"))
		}
	}
	for _, r := range releases {
		p := r.until("the sidecar is in back-off", func(p pod) bool {
			c := p.container("podnotify")
			return c.RestartCount == times-1 && c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff"
		})
		if p.container(r.name).RestartCount != 0 {
			t.Errorf("the daemon was touched: %v", p)
		}
		t.Logf("%s: sidecar killed %d times: %v", r.name, times, p)
	}
	s.RestartKubelet(t)
	t.Log("kubelet: killed and started again")
	for _, r := range releases {
		p := r.within(10*time.Minute, "the pod is ready again", func(p pod) bool { return r.agree(p, true) })
		r.serving(true)
		now, f := p.container(r.name), r.facts(p)
		if now.RestartCount != 0 || now.ContainerID != daemons[r].ContainerID {
			t.Errorf("the daemon was touched: %v", p)
		}
		if !f.Adopted || f.Counters.Datagrams != 0 {
			t.Errorf("podnotify of %s says %+v; adopted, and without a word of the daemon, was meant", r.name, f)
		}
		if err := r.ping(p); err != nil {
			t.Error(err)
		}
		t.Logf("%s: %v; adopted %v, %d datagrams since", r.name, p, f.Adopted, f.Counters.Datagrams)
	}
	for _, r := range releases {
		r.uninstall()
	}
}

// testEntrypoint: the image starts a temporary server first, which says READY=1
// and STOPPING=1 like the real one.
func testEntrypoint(t *testing.T, s *suite) {
	ns := s.namespace(t, "entrypoint")
	r := s.install(t, ns, "database", database, `
daemon:
  ports: [{name: redis, containerPort: 6379}]
  volumeMounts: [{name: data, mountPath: /data}]
volumes: [{name: data, emptyDir: {}}]
`)
	var p pod
	r.until("the real server is ready", func(now pod) bool { p = now; return r.agree(now, true) && r.ping(now) == nil })
	p = r.serving(true)
	f := r.facts(p)
	if n := p.container("database").RestartCount + p.container("podnotify").RestartCount; n != 0 || f.Phase != "ready" {
		t.Errorf("%v; podnotify says %+v", p, f)
	}
	t.Logf("%v; podnotify says %s, status %q, %d datagrams", p, f.Phase, f.Status, f.Counters.Datagrams)
	r.uninstall()
}

// testSlowStart: a start that is longer than timeouts.start and all of kubelet's
// budgets, but extended by EXTEND_TIMEOUT_USEC; with the chart's defaults, and
// where a start that takes too long ends the container within seconds.
func testSlowStart(t *testing.T, s *suite) {
	ns := s.namespace(t, "slow")
	began := time.Now()
	releases := []*release{
		s.install(t, ns, "slow", slow, "{}"),
		s.install(t, ns, "strict", slow, `
podnotify:
  config:
    timeouts: {start: 60s}
    policy: {start-timeout: not-live}
  probes:
    liveness: {handler: exec, exec: {periodSeconds: 2, failureThreshold: 2}}
`),
	}
	daemons := map[*release]container{}
	for _, r := range releases {
		r.until("it has begun", func(p pod) bool {
			daemons[r] = p.container(r.name)
			return daemons[r].State.Running != nil
		})
	}
	for _, r := range releases {
		p := r.within(15*time.Minute, "it is ready", func(p pod) bool {
			if p.container(r.name).RestartCount != 0 {
				t.Fatalf("it was not left to start: %v", p)
			}
			return r.agree(p, true)
		})
		if p.container(r.name).ContainerID != daemons[r].ContainerID || p.container("podnotify").RestartCount != 0 {
			t.Errorf("%v", p)
		}
		if err := r.ping(p); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 350*time.Second {
			t.Errorf("ready after %v, before it was", took)
		}
		t.Logf("%v, after %v", p, time.Since(began).Round(time.Second))
	}
	for _, r := range releases {
		r.uninstall()
	}
}

// testNothing: after the last uninstall nothing of ours is in the cluster, and
// nothing runs on the node.
func testNothing(t *testing.T, s *suite) {
	s.Until(t, "the cluster is empty", func() (bool, string) {
		out, err := s.TryKubectl("get", "all,secrets,endpointslices,poddisruptionbudgets,persistentvolumeclaims", "--all-namespaces", "--output", "name")
		return err == nil && strings.Join(strings.Fields(out), " ") == "service/kubernetes endpointslice.discovery.k8s.io/kubernetes", out
	})
	s.Until(t, "no container runs", func() (bool, string) {
		out, err := s.Containerd.Ctr(t.Context(), "k8s.io", "tasks", "ls", "--quiet")
		return err == nil && strings.TrimSpace(out) == "", out
	})
	s.Until(t, "no volume is left", func() (bool, string) {
		left, err := os.ReadDir(filepath.Join(s.dir, "root/pods"))
		return err == nil && len(left) == 0, fmt.Sprint(left, err)
	})
	t.Log("the cluster and the node are empty")
}
