package charts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// pod is a pod that a rendering makes.
type pod struct {
	name string
	spec *corev1.PodSpec
	meta *unstructured.Unstructured
}

// pods are the pods of a rendering, those of helm test included.
func pods(t *testing.T, r rendering) (out []pod) {
	t.Helper()
	for _, o := range r.objects {
		p := pod{name: r.name + ": " + o.GetKind() + " " + o.GetName(), meta: o}
		switch o.GetKind() {
		case "Pod":
			p.spec = &into[corev1.Pod](t, o.Object).Spec
		case "Deployment":
			p.spec = &into[appsv1.Deployment](t, o.Object).Spec.Template.Spec
		case "StatefulSet":
			p.spec = &into[appsv1.StatefulSet](t, o.Object).Spec.Template.Spec
		case "DaemonSet":
			p.spec = &into[appsv1.DaemonSet](t, o.Object).Spec.Template.Spec
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}

// TestRestricted: Pod Security "restricted", as its own library sees it.
func TestRestricted(t *testing.T) {
	for _, r := range everything(t) {
		for _, p := range pods(t, r) {
			if bad := refused(t, p.spec); bad != "" {
				t.Errorf("%s: %s", p.name, bad)
			}
		}
	}
}

func TestRestrictedFails(t *testing.T) {
	values := read(t, app+"/ci/mydaemon-values.yaml")
	values["runAsUser"] = 0
	r, err := render(t, app, "root", values)
	if err != nil {
		t.Fatal(err)
	}
	if bad := refused(t, pods(t, r)[0].spec); !strings.Contains(bad, "runAsNonRoot") {
		t.Errorf("root is refused for %q", bad)
	}
	if !strings.Contains(r.notes, "restricted") {
		t.Errorf("the notes do not say so:\n%s", r.notes)
	}
}

func refused(t *testing.T, spec *corev1.PodSpec) string {
	t.Helper()
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	var bad []string
	for _, result := range e.EvaluatePod(level, &metav1.ObjectMeta{}, spec) {
		if !result.Allowed {
			bad = append(bad, result.ForbiddenReason+": "+result.ForbiddenDetail)
		}
	}
	return strings.Join(bad, "; ")
}

// TestRules: how a pod must be made for podnotify to be right about it.
func TestRules(t *testing.T) {
	n := 0
	for _, r := range everything(t) {
		for _, p := range pods(t, r) {
			if p.meta.GetAnnotations()["helm.sh/hook"] == "test" {
				continue
			}
			n++
			for _, bad := range broken(p.spec) {
				t.Errorf("%s: %s", p.name, bad)
			}
		}
	}
	if n < len(glob(t, app+"/ci/*-values.yaml")) {
		t.Errorf("only %d pods looked at", n)
	}
}

// TestRulesFail breaks each rule in a pod that keeps all.
func TestRulesFail(t *testing.T) {
	r, err := render(t, app, "redis-notify", read(t, app+"/ci/redis-notify-values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	good := pods(t, r)[0].spec
	if bad := broken(good); bad != nil {
		t.Fatalf("the good one: %s", bad)
	}
	sidecar := func(s *corev1.PodSpec) *corev1.Container { return &s.InitContainers[len(s.InitContainers)-1] }
	daemon := func(s *corev1.PodSpec) *corev1.Container { return &s.Containers[0] }
	for name, breaks := range map[string]func(*corev1.PodSpec){
		"no sidecar":     func(s *corev1.PodSpec) { sidecar(s).RestartPolicy = nil },
		"gone":           func(s *corev1.PodSpec) { s.InitContainers = nil },
		"namespace":      func(s *corev1.PodSpec) { s.ShareProcessNamespace = nil },
		"startup":        func(s *corev1.PodSpec) { sidecar(s).StartupProbe = nil },
		"own probe":      func(s *corev1.PodSpec) { sidecar(s).LivenessProbe.HTTPGet.Path = "/livez" },
		"own readiness":  func(s *corev1.PodSpec) { sidecar(s).ReadinessProbe = daemon(s).ReadinessProbe },
		"cpu":            func(s *corev1.PodSpec) { sidecar(s).Resources.Limits["cpu"] = sidecar(s).Resources.Requests["cpu"] },
		"prestop":        func(s *corev1.PodSpec) { sidecar(s).Lifecycle = nil },
		"no readiness":   func(s *corev1.PodSpec) { daemon(s).ReadinessProbe = nil },
		"all services":   func(s *corev1.PodSpec) { daemon(s).ReadinessProbe.HTTPGet.Path = "/readyz" },
		"named port":     func(s *corev1.PodSpec) { daemon(s).ReadinessProbe.HTTPGet.Port.Type = 1 },
		"other port":     func(s *corev1.PodSpec) { daemon(s).LivenessProbe.HTTPGet.Port.IntVal = 1 },
		"slow readiness": func(s *corev1.PodSpec) { daemon(s).ReadinessProbe.PeriodSeconds = 30 },
		"fast liveness":  func(s *corev1.PodSpec) { daemon(s).LivenessProbe.FailureThreshold = 31 },
		"rare liveness": func(s *corev1.PodSpec) {
			daemon(s).LivenessProbe.FailureThreshold, daemon(s).LivenessProbe.PeriodSeconds = 1, 400
		},
		"writable":          func(s *corev1.PodSpec) { daemon(s).VolumeMounts[0].ReadOnly = false },
		"all of the volume": func(s *corev1.PodSpec) { daemon(s).VolumeMounts[0].SubPath = "" },
		"elsewhere":         func(s *corev1.PodSpec) { daemon(s).VolumeMounts[0].MountPath = "/run/notify" },
		"disk":              func(s *corev1.PodSpec) { s.Volumes[0].EmptyDir.Medium = "" },
		"no size":           func(s *corev1.PodSpec) { s.Volumes[0].EmptyDir.SizeLimit = nil },
		"other user":        func(s *corev1.PodSpec) { sidecar(s).SecurityContext.RunAsUser = new(int64) },
		"grace":             func(s *corev1.PodSpec) { *s.TerminationGracePeriodSeconds = 94 },
		"token":             func(s *corev1.PodSpec) { s.AutomountServiceAccountToken = nil },
		"no environment":    func(s *corev1.PodSpec) { daemon(s).Env = nil },
		"both": func(s *corev1.PodSpec) {
			daemon(s).Env = append(daemon(s).Env, corev1.EnvVar{Name: "UPSTART_JOB", Value: "x"})
		},
		"other container": func(s *corev1.PodSpec) {
			daemon(s).Name = "other"
			s.Containers = append(s.Containers, s.Containers[0])
		},
	} {
		s := good.DeepCopy()
		breaks(s)
		if broken(s) == nil {
			t.Errorf("%s: no rule is broken", name)
		}
	}
}

// broken are the rules that a pod breaks. It judges by what is in the pod only.
func broken(s *corev1.PodSpec) (bad []string) {
	say := func(rule bool, format string, args ...any) {
		if !rule {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	say(s.AutomountServiceAccountToken != nil && !*s.AutomountServiceAccountToken, "has a token")
	say(s.SecurityContext != nil && s.SecurityContext.RunAsUser != nil, "the pod has no user")

	var args []string
	var sidecar, daemon *corev1.Container
	for i, c := range s.InitContainers {
		if slices.Contains(c.Args, "sidecar") {
			sidecar, args = &s.InitContainers[i], c.Args
		}
	}
	if sidecar == nil {
		for i, c := range s.Containers {
			if len(c.Command) > 1 && c.Command[1] == "run" {
				daemon, args = &s.Containers[i], c.Command[:slices.Index(c.Command, "--")]
			}
		}
	}
	// The container called like the service, unless it is named; else the only one.
	name := flagOf(args, "service", "")
	for i, c := range s.Containers {
		if c.Name == flagOf(args, "select-container", name) || len(s.Containers) == 1 && daemon == nil {
			daemon = &s.Containers[i]
		}
	}
	if daemon == nil {
		return append(bad, fmt.Sprintf("nothing serves a container of this pod: service %q", name))
	}
	run := sidecar == nil
	port := strings.TrimPrefix(flagOf(args, "listen", ":19119"), ":")

	// Both containers run as the pod's user.
	for _, c := range slices.Concat(s.InitContainers, s.Containers) {
		say(c.SecurityContext == nil || c.SecurityContext.RunAsUser == nil, "container %s has a user of its own", c.Name)
	}
	stop := duration(flagOf(args, "timeouts-stop", "90s"))
	say(s.TerminationGracePeriodSeconds != nil && *s.TerminationGracePeriodSeconds >= stop+5, "the grace period is shorter than timeouts.stop, %d s, and 5 s", stop)

	// podnotify's own probes are about podnotify; the daemon starts after it.
	if !run {
		say(sidecar.RestartPolicy != nil && *sidecar.RestartPolicy == corev1.ContainerRestartPolicyAlways, "podnotify is no native sidecar")
		say(s.ShareProcessNamespace != nil && *s.ShareProcessNamespace, "the PID namespace is not shared")
		say(sidecar.StartupProbe != nil, "the daemon may start before its socket is there")
		for _, p := range []*corev1.Probe{sidecar.StartupProbe, sidecar.LivenessProbe, sidecar.ReadinessProbe} {
			say(p == nil || p.HTTPGet != nil && p.HTTPGet.Path == "/healthz" && p.HTTPGet.Port.String() == port, "a probe of podnotify is not about podnotify")
		}
		_, limited := sidecar.Resources.Limits[corev1.ResourceCPU]
		say(!limited, "podnotify has a CPU limit")
		say(sidecar.Lifecycle != nil && sidecar.Lifecycle.PreStop != nil && slices.Contains(sidecar.Lifecycle.PreStop.Exec.Command, "prestop"), "podnotify has no preStop hook")
	}

	// The daemon's probes are on the daemon's container, at the service's own paths.
	service := func(p *corev1.Probe, path string) bool {
		return p.HTTPGet != nil && p.HTTPGet.Path == path+name && p.HTTPGet.Port.Type == 0 && p.HTTPGet.Port.String() == port
	}
	if p := daemon.ReadinessProbe; p == nil {
		say(false, "the daemon has no readiness probe")
	} else {
		say(service(p, "/readyz/"), "the daemon's readiness is asked for elsewhere")
		say(p.PeriodSeconds <= 2, "the daemon's readiness is asked for every %d s only", p.PeriodSeconds)
	}
	if p := daemon.LivenessProbe; p != nil && p.Exec != nil {
		say(slices.Contains(p.Exec.Command, "--fail-open"), "no answer is the daemon's end")
		say(slices.Contains(p.Exec.Command, "--service="+name), "the exec probe asks for all services")
		say(slices.Contains(p.Exec.Command, "--address=http://127.0.0.1:"+port), "the exec probe asks elsewhere")
	} else if p != nil {
		say(service(p, "/livez/"), "the daemon's liveness is asked for elsewhere")
		// The first no may come as soon as podnotify is gone: n of them take n-1 periods.
		say(p.FailureThreshold*p.PeriodSeconds > 310 && (p.FailureThreshold-1)*p.PeriodSeconds >= 310, "podnotify in crash back-off would end the daemon: %d x %d s", p.FailureThreshold, p.PeriodSeconds)
	}
	if p := daemon.StartupProbe; p != nil {
		say(service(p, "/startupz/"), "the daemon's start is asked for elsewhere")
		say(int64(p.FailureThreshold*p.PeriodSeconds) > duration(flagOf(args, "timeouts-start", "90s")), "the startup probe ends a start that podnotify still waits for")
	}

	// The volume: in memory, small; the daemon sees its own socket only, and writes nothing.
	var volume string
	holder := sidecar
	if run {
		holder = daemon
	}
	for _, m := range holder.VolumeMounts {
		if m.MountPath == "/run/podnotify" {
			volume = m.Name
		}
	}
	say(volume != "", "podnotify has no volume")
	for _, v := range s.Volumes {
		if v.Name == volume {
			say(v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory && v.EmptyDir.SizeLimit != nil, "the volume is not in memory, or has no limit")
		}
	}
	expect := flagOf(args, "expect", "auto")
	if !run {
		seen := false
		for _, m := range daemon.VolumeMounts {
			if m.Name == volume {
				seen = m.ReadOnly && m.MountPath == "/run/podnotify/"+name && m.SubPath == name
				say(seen, "the daemon's mount shows more than its socket")
			}
		}
		say(seen, "the daemon has no socket")

		// What the daemon is told, and no more.
		env := map[string]string{}
		for _, e := range daemon.Env {
			env[e.Name] = e.Value
		}
		say(env["WATCHDOG_PID"] == "", "WATCHDOG_PID is set")
		say((env["NOTIFY_SOCKET"] == "/run/podnotify/"+name+"/notify") == (expect == "auto" || expect == "notify"), "NOTIFY_SOCKET is %q", env["NOTIFY_SOCKET"])
		job := flagOf(args, "job", "")
		if expect == "stop" && job == "" {
			job = name
		}
		if expect != "stop" && expect != "auto" {
			job = ""
		}
		say(env["UPSTART_JOB"] == job, "UPSTART_JOB is %q, not %q", env["UPSTART_JOB"], job)
		say((env["WATCHDOG_USEC"] != "") == (flagOf(args, "watchdog-interval", "") != ""), "WATCHDOG_USEC is %q", env["WATCHDOG_USEC"])
	}
	return bad
}

// flagOf is the value of a flag among arguments.
func flagOf(args []string, name, def string) string {
	for _, a := range args {
		if v, is := strings.CutPrefix(a, "--"+name+"="); is {
			return v
		}
	}
	return def
}

// TestContradictions: values that cannot work are refused, with the cure.
func TestContradictions(t *testing.T) {
	for name, c := range map[string]struct{ set, want string }{
		"no image":      {"daemon.image.repository=", "set it to the image of your daemon"},
		"fork":          {"podnotify.config.expect=fork", "set podnotify.mode to run"},
		"exec":          {"podnotify.config.respawn.mode=exec", "set podnotify.mode to run"},
		"store":         {"podnotify.config.fdstore.max=4", "set podnotify.mode to run"},
		"pidfile":       {"podnotify.config.expect=pidfile", "podnotify.config.select.pidfile"},
		"pod":           {"podnotify.config.respawn.mode=pod", "1.36"},
		"run":           {"podnotify.mode=run", "set daemon.command"},
		"grace":         {"terminationGracePeriodSeconds=94", "set at least 95"},
		"long stop":     {"podnotify.config.timeouts.stop=10m,terminationGracePeriodSeconds=600", "set at least 605"},
		"endless stop":  {"podnotify.config.timeouts.stop=0", "set terminationGracePeriodSeconds"},
		"startup":       {"podnotify.probes.startup.enabled=true,podnotify.probes.startup.budgetSeconds=90", "kubelet would end a start"},
		"endless start": {"podnotify.probes.startup.enabled=true,podnotify.config.timeouts.start=0", "budgetSeconds"},
		"own name":      {"podnotify.name=podnotify", "set podnotify.name"},
		"extra":         {"extraContainers[0].name=podnotify,extraContainers[0].image=x", "call it something else"},
		"extra daemon":  {"initContainers[0].name=x,initContainers[0].image=x", "call it something else"},
		"expression":    {"podnotify.config.select.process=(", "missing closing )"},
		"no port":       {"service.type=LoadBalancer", "list daemon.ports"},
		"claims":        {"volumeClaimTemplates[0].metadata.name=x,volumeClaimTemplates[0].spec.accessModes[0]=x", "set kind to StatefulSet"},
		"fast liveness": {"podnotify.probes.liveness.httpGet.budgetSeconds=310", "minimum: got 310, want 311"},
		"duration":      {"podnotify.config.timeouts.start=soon", "does not match pattern"},
		"number":        {"podnotify.config.timeouts.start=90", "want string"},
		"bad name":      {"podnotify.name=Redis", "does not match pattern"},
		"kind":          {"kind=Job", "'Deployment', 'StatefulSet', 'DaemonSet'"},
		"own user":      {"podnotify.securityContext.runAsUser=1", "'runAsUser' not allowed"},
		"own port":      {"daemon.ports[0].name=podnotify,daemon.ports[0].containerPort=1", "'not' failed"},
		"same port":     {"daemon.ports[0].name=x,daemon.ports[0].containerPort=19119", "set podnotify.port"},
		"no grace":      {"terminationGracePeriodSeconds=0", "set at least 95"},
		"run and pod":   {"podnotify.mode=run,daemon.command[0]=x,podnotify.config.respawn.mode=pod", "set podnotify.mode to sidecar"},
		"no reload":     {"podnotify.config.policy.unknown=reload", "set podnotify.config.signals.reload"},
		"no restart":    {"podnotify.config.policy.unknown=restart,podnotify.config.timeouts.start=0s", "set podnotify.config.timeouts.start"},
		"taken name":    {"podnotify.name=state", "set podnotify.name"},
		"own variable":  {"daemon.env[0].name=NOTIFY_SOCKET,daemon.env[0].value=x", "NOTIFY_SOCKET is podnotify's to set"},
		"run variable":  {"podnotify.mode=run,daemon.command[0]=x,daemon.env[0].name=PODNOTIFY_RUN_DIR,daemon.env[0].value=x", "PODNOTIFY_RUN_DIR is podnotify's to set"},
		"own label":     {`podLabels.app\.kubernetes\.io/name=x`, "set nameOverride"},
		"common label":  {`commonLabels.app\.kubernetes\.io/instance=x`, "commonLabels has app.kubernetes.io/instance"},
		"name's shape":  {"fullnameOverride=A_b", "does not match pattern"},
		"label's shape": {"nameOverride=-a", "does not match pattern"},
	} {
		values := set(t, "daemon.image.repository=x,podnotify.name=x,"+c.set)
		_, err := render(t, app, name, values)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", name, c.want, err)
		}
	}
}

// TestPublished: what podnotify knows is not offered outside the cluster.
func TestPublished(t *testing.T) {
	for kind, want := range map[string]bool{"ClusterIP": true, "NodePort": false, "LoadBalancer": false} {
		r, err := render(t, app, kind, set(t, "daemon.image.repository=x,podnotify.name=x,daemon.ports[0].name=x,daemon.ports[0].containerPort=1,service.type="+kind))
		if err != nil {
			t.Fatal(err)
		}
		tested := strings.Contains(r.notes, "helm test")
		for _, o := range r.objects {
			if o.GetKind() != "Service" {
				continue
			}
			ports, _, err := unstructured.NestedSlice(o.Object, "spec", "ports")
			if err != nil {
				t.Fatal(err)
			}
			if has := len(ports) == 2; has != want || tested != want {
				t.Errorf("%s: podnotify's port is in it: %v; helm test: %v; want %v", kind, has, tested, want)
			}
		}
	}
}

// TestLongNames: every name stays one that Kubernetes takes.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("n", 63)
	r, err := render(t, app, "long", set(t, "daemon.image.repository=x,kind=StatefulSet,podDisruptionBudget.enabled=true,podMonitor.enabled=true,nameOverride="+long+",fullnameOverride="+long+",podnotify.name="+long))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range r.objects {
		if o.GetKind() == "StatefulSet" { // its pods have a label with its name, a hyphen and up to 10 characters of a hash
			if n := len(o.GetName()); n > 52 {
				t.Errorf("a StatefulSet whose name has %d characters gets no pods", n)
			}
		}
		if bad := validation.IsDNS1123Label(o.GetName()); bad != nil {
			t.Errorf("%s %s: %s", o.GetKind(), o.GetName(), bad)
		}
		for _, v := range o.GetLabels() {
			if bad := validation.IsValidLabelValue(v); bad != nil {
				t.Errorf("%s %s: label %s", o.GetKind(), o.GetName(), bad)
			}
		}
	}
}

// TestStrings: what looks like something else to YAML stays text.
func TestStrings(t *testing.T) {
	for _, name := range []string{"123", "1e5", "true", "null", "0x1f", "on", "y"} {
		values := set(t, "daemon.image.repository=x,kind=StatefulSet,podDisruptionBudget.enabled=true,podMonitor.enabled=true,daemon.ports[0].containerPort=1")
		values["daemon"].(map[string]any)["ports"].([]any)[0].(map[string]any)["name"] = name
		for _, key := range []string{"nameOverride", "priorityClassName"} {
			values[key] = name
		}
		values["serviceAccount"] = map[string]any{"name": name}
		values["daemon"].(map[string]any)["workingDir"] = name
		for _, mode := range []string{"sidecar", "run"} {
			values["podnotify"] = map[string]any{"mode": mode, "image": map[string]any{"tag": ""}}
			values["daemon"].(map[string]any)["command"] = []any{name}
			r, err := renderAs(t, name, values)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			valid(t, r)
		}
	}
}

// valid holds a rendering against the schemas.
func valid(t *testing.T, r rendering) {
	t.Helper()
	for _, o := range r.objects {
		if o.GroupVersionKind().Group == "monitoring.coreos.com" {
			continue
		}
		at := r.name + ": " + o.GetKind() + " " + o.GetName()
		if err := decodes(o); err != nil {
			t.Errorf("%s: %v", at, err)
		} else if err := kubernetesSchema(t, o.GroupVersionKind()).Validate(plain(t, o.Object)); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// TestNull takes each value away, as null does: what is left is refused by its
// name, or is a pod that keeps the rules.
func TestNull(t *testing.T) {
	var keys []string
	var walk func(under string, v map[string]any)
	walk = func(under string, v map[string]any) {
		for _, k := range slices.Sorted(maps.Keys(v)) {
			keys = append(keys, under+k)
			kubernetes := slices.Contains([]string{"securityContext", "podSecurityContext", "resources"}, k) // whose keys are not ours
			if m, is := v[k].(map[string]any); is && !kubernetes {
				walk(under+k+".", m)
			}
		}
	}
	walk("", read(t, app+"/values.yaml"))
	walk("podnotify.", read(t, library+"/values.yaml"))
	if len(keys) < 100 {
		t.Fatalf("only %d values", len(keys))
	}
	const on = "podnotify.probes.startup.enabled=true,podnotify.probes.liveness.handler=exec,podDisruptionBudget.enabled=true,podMonitor.enabled=true,"
	for _, key := range keys {
		last := key[strings.LastIndex(key, ".")+1:]
		r, err := render(t, app, key, set(t, "daemon.image.repository=x,podnotify.name=x,"+on+key+"=null"))
		if err != nil {
			if !strings.Contains(err.Error(), last) || strings.Contains(err.Error(), "nil pointer") {
				t.Errorf("%s: %v", key, err)
			}
			continue
		}
		valid(t, r)
		for _, p := range pods(t, r) {
			if c := p.spec.SecurityContext; c.RunAsUser == nil || *c.RunAsUser == 0 {
				t.Errorf("%s: %s runs as root", key, p.name)
			}
		}
	}
}

// TestPodLabels: the more particular one wins, and an upgrade of the chart that
// changes nothing else restarts no daemon.
func TestPodLabels(t *testing.T) {
	r, err := render(t, app, "labels", set(t, "daemon.image.repository=x,commonLabels.team=a,commonLabels.site=b,podLabels.team=c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range r.objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		got := into[appsv1.Deployment](t, o.Object).Spec.Template.Labels
		want := map[string]string{"app.kubernetes.io/name": "podnotify", "app.kubernetes.io/instance": "demo", "team": "c", "site": "b"}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		return
	}
	t.Error("no Deployment")
}

// TestDollar: kubelet takes $(NAME) and $$ in arguments for its own.
func TestDollar(t *testing.T) {
	r, err := render(t, app, "dollar", set(t, "daemon.image.repository=x,podnotify.config.select.process=^a$$|$(PATH)$"))
	if err != nil {
		t.Fatal(err)
	}
	args := pods(t, r)[0].spec.InitContainers[0].Args
	if want := "--select-process=^a$$$$|$$(PATH)$$"; !slices.Contains(args, want) {
		t.Errorf("%q is not in %q", want, args)
	}
}

// TestArguments lets podnotify itself read the arguments of every pod.
func TestArguments(t *testing.T) {
	dir := t.TempDir()
	command(t, root, "go", "build", "-o", dir+"/", "./cmd/podnotify", "./cmd/podnotify-healthcheck")
	podnotify, healthcheck := dir+"/podnotify", dir+"/podnotify-healthcheck"

	// No answer is a yes with --fail-open, a flag that nobody knows is not.
	nobody := []string{"--fail-open", "--wait=0s", "--address=http://127.0.0.1:1"}
	asked := 0
	for _, r := range everything(t) {
		for _, p := range pods(t, r) {
			for _, c := range slices.Concat(p.spec.InitContainers, p.spec.Containers) {
				switch {
				case slices.Contains(c.Args, "sidecar"):
					command(t, ".", podnotify, slices.Concat([]string{"config", "check", "--mode=sidecar"}, c.Args[1:])...)
				case len(c.Command) > 1 && c.Command[1] == "run":
					command(t, ".", podnotify, slices.Concat([]string{"config", "check", "--mode=run"}, c.Command[2:])...)
				case slices.Contains(c.Args, "healthcheck"): // helm test
					command(t, ".", podnotify, slices.Concat(c.Args, nobody)...)
				case slices.Contains(c.Args, "install"):
					command(t, ".", podnotify, "install", t.TempDir())
				}
				if p := c.LivenessProbe; p != nil && p.Exec != nil {
					asked++
					command(t, ".", healthcheck, slices.Concat(p.Exec.Command[1:], nobody)...)
				}
			}
		}
	}
	if asked == 0 {
		t.Error("no exec probe was looked at")
	}
}
