package charts

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// injector runs examples/injection/policy.yaml as an API server does, with the
// API server's own library: the expressions are compiled in the environment of
// the Kubernetes that the end-to-end tests run, and executed.
type injector struct {
	policy   *admissionv1.MutatingAdmissionPolicy
	compiler *plugincel.CompositedCompiler
	matcher  matchconditions.Matcher
	patchers []patch.Patcher
	selector labels.Selector
}

func newInjector(t *testing.T) *injector {
	t.Helper()
	objects := readAll(t, root+"/examples/injection/policy.yaml")
	for _, o := range objects {
		if err := decodes(o); err != nil {
			t.Fatal(err)
		}
	}
	p := into[admissionv1.MutatingAdmissionPolicy](t, objects[0].Object)
	binding := into[admissionv1.MutatingAdmissionPolicyBinding](t, objects[1].Object)
	if binding.Spec.PolicyName != p.Name {
		t.Fatalf("the binding is of %q, the policy is %q", binding.Spec.PolicyName, p.Name)
	}

	opts := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MustParse(kubernetes)))
	if err != nil {
		t.Fatal(err)
	}
	in := &injector{policy: p, compiler: compiler}
	for _, v := range p.Spec.Variables {
		e := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, opts, environment.NewExpressions)
		if e.Error != nil {
			t.Errorf("%s: %v", v.Name, e.Error)
		}
	}
	var conditions []plugincel.ExpressionAccessor
	for i := range p.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i]))
	}
	match := compiler.CompileCondition(conditions, opts, environment.NewExpressions)
	if err := match.CompilationErrors(); len(err) > 0 {
		t.Errorf("match conditions: %v", err)
	}
	in.matcher = matchconditions.NewMatcher(match, p.Spec.FailurePolicy, "policy", "mutate", p.Name)
	opts.HasPatchTypes = true
	for _, m := range p.Spec.Mutations {
		e := compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, opts, environment.NewExpressions)
		if err := e.CompilationErrors(); len(err) > 0 {
			t.Errorf("mutation: %v", err)
		}
		in.patchers = append(in.patchers, patch.NewJSONPatcher(e))
	}
	if t.Failed() {
		t.FailNow()
	}
	if in.selector, err = metav1.LabelSelectorAsSelector(p.Spec.MatchConstraints.ObjectSelector); err != nil {
		t.Fatal(err)
	}
	return in
}

// inject is what comes of a pod that is created.
func (in *injector) inject(t *testing.T, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	if !in.selector.Matches(labels.Set(pod.Labels)) {
		return pod, nil
	}
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	interfaces := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	attributes := admission.NewAttributesRecord(pod, nil, kind, "default", pod.Name, resource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	v, err := admission.NewVersionedAttributes(attributes, kind, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	ctx := in.compiler.CreateContext(context.Background())
	if m := in.matcher.Match(ctx, v, nil, nil); m.Error != nil || !m.Matches {
		return pod, m.Error
	}
	for _, p := range in.patchers {
		o, err := p.Patch(ctx, patch.Request{
			MatchedResource: resource, VersionedAttributes: v, ObjectInterfaces: interfaces,
			TypeConverter: applyconfigurations.NewTypeConverter(scheme.Scheme),
		}, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
		if o, err = interfaces.GetObjectConvertor().ConvertToVersion(o, corev1.SchemeGroupVersion); err != nil {
			return nil, err
		}
		v.UpdateObject(o)
	}
	return v.VersionedObject.Object().(*corev1.Pod), nil
}

// created is a pod as an API server hands it to a policy, from its manifest.
func created(t *testing.T, manifest string) *corev1.Pod {
	t.Helper()
	var o map[string]any
	if err := yaml.UnmarshalStrict([]byte(manifest), &o); err != nil {
		t.Fatal(err)
	}
	return into[corev1.Pod](t, o)
}

const bare = `
apiVersion: v1
kind: Pod
metadata: {name: redis, labels: {podnotify.io/inject: "true"}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 30
  securityContext: {runAsUser: 999, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: redis
      image: redis:8
      args: [redis-server, --supervised, systemd]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

const furnished = `
apiVersion: v1
kind: Pod
metadata:
  name: redis
  labels: {podnotify.io/inject: "true"}
  annotations:
    podnotify.io/container: redis
    podnotify.io/redis.expect: stop
    podnotify.io/redis.job: cache
    podnotify.io/redis.timeouts.stop: 2m
    podnotify.io/redis.watchdog.interval: 1500ms
    podnotify.io/redis.gate.tcp: "127.0.0.1:6379"
    podnotify.io/proxy.expect: notify
    podnotify.io/booted: "true"
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 60
  securityContext: {runAsUser: 999, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  volumes:
    - {name: data, emptyDir: {}}
  initContainers:
    - name: prepare
      image: redis:8
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  containers:
    - name: proxy
      image: proxy:1
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    - name: redis
      image: redis:7
      env:
        - {name: TZ, value: UTC}
      volumeMounts:
        - {name: data, mountPath: /data}
      livenessProbe: {exec: {command: [redis-cli, ping]}}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

func TestInjection(t *testing.T) {
	in := newInjector(t)
	for name, manifest := range map[string]string{"bare": bare, "furnished": furnished} {
		pod, err := in.inject(t, created(t, manifest))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		pod.APIVersion, pod.Kind = "v1", "Pod"
		b, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/golden/injection-"+name+".yaml", string(b))
		objects, err := parse(string(b))
		if err != nil {
			t.Fatal(err)
		}
		unstructured := objects[0].Object
		delete(unstructured, "status")
		if err := kubernetesSchema(t, objects[0].GroupVersionKind()).Validate(plain(t, unstructured)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if bad := refused(t, &pod.Spec); bad != "" {
			t.Errorf("%s: %s", name, bad)
		}
		ours := pod.Spec.DeepCopy()
		if name == "furnished" {
			ours.Containers[1].LivenessProbe = nil // its own
		}
		for _, bad := range broken(ours) {
			t.Errorf("%s: %s", name, bad)
		}

		again, err := in.inject(t, pod.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(pod, again); d != "" {
			t.Errorf("%s: a second time changes it:\n%s", name, d)
		}
	}
}

// TestInjectionKeeps: what is in a pod stays as it is.
func TestInjectionKeeps(t *testing.T) {
	in := newInjector(t)
	before := created(t, furnished)
	after, err := in.inject(t, before.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before.Spec.Containers[0], after.Spec.Containers[0]); d != "" {
		t.Errorf("the other container:\n%s", d)
	}
	was, is := before.Spec.Containers[1], after.Spec.Containers[1]
	if is.Env[0] != was.Env[0] || !cmp.Equal(is.VolumeMounts[0], was.VolumeMounts[0]) || !cmp.Equal(is.LivenessProbe, was.LivenessProbe) ||
		!cmp.Equal(is.Args, was.Args) || after.Spec.Volumes[0].Name != "data" || after.Spec.InitContainers[0].Name != "prepare" {
		t.Errorf("%v", cmp.Diff(was, is))
	}

	unlabelled := created(t, strings.Replace(bare, `podnotify.io/inject: "true"`, `podnotify.io/inject: "false"`, 1))
	if after, err := in.inject(t, unlabelled.DeepCopy()); err != nil || !cmp.Equal(unlabelled, after) {
		t.Errorf("not labelled: %v\n%s", err, cmp.Diff(unlabelled, after))
	}

	// No place for podnotify, or nobody who would look.
	for name, change := range map[string]func(*corev1.Pod){
		"a container called podnotify":       func(p *corev1.Pod) { p.Spec.Containers[0].Name = "podnotify" },
		"an init container called podnotify": func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{{Name: "podnotify"}} },
		"a mirror":                           func(p *corev1.Pod) { p.Annotations = map[string]string{"kubernetes.io/config.mirror": "x"} },
	} {
		pod := created(t, bare)
		change(pod)
		if after, err := in.inject(t, pod.DeepCopy()); err != nil || !cmp.Equal(pod, after) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(pod, after))
		}
	}

	// A daemon that has its own NOTIFY_SOCKET, user and grace period.
	own := created(t, bare)
	user := int64(1000)
	own.Spec.SecurityContext = nil
	own.Spec.TerminationGracePeriodSeconds = nil
	own.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &user}
	own.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "NOTIFY_SOCKET", Value: "/elsewhere"}}
	after, err = in.inject(t, own)
	if err != nil {
		t.Fatal(err)
	}
	if env := after.Spec.Containers[0].Env; len(env) != 1 || env[0].Value != "/elsewhere" {
		t.Errorf("environment %v", env)
	}
	if c := after.Spec.InitContainers[0].SecurityContext; *c.RunAsUser != user || c.RunAsGroup != nil {
		t.Errorf("podnotify's user is not the daemon's: %v", c)
	}
	if args := after.Spec.InitContainers[0].Args; !slices.Contains(args, "--timeouts-stop=25s") || *after.Spec.TerminationGracePeriodSeconds != 30 {
		t.Errorf("grace period %d, %v", *after.Spec.TerminationGracePeriodSeconds, args)
	}
}

// TestInjectionStop: timeouts.stop reaches podnotify as it is written, and the grace
// period is longer.
func TestInjectionStop(t *testing.T) {
	in := newInjector(t)
	for stop, grace := range map[string]int64{"500ms": 30, "25500ms": 31, "1m30s": 95} {
		pod := created(t, bare)
		pod.Annotations = map[string]string{"podnotify.io/redis.timeouts.stop": stop}
		after, err := in.inject(t, pod)
		if err != nil {
			t.Fatal(err)
		}
		if args := after.Spec.InitContainers[0].Args; !slices.Contains(args, "--timeouts-stop="+stop) || *after.Spec.TerminationGracePeriodSeconds != grace {
			t.Errorf("%s: grace period %d, %v", stop, *after.Spec.TerminationGracePeriodSeconds, args)
		}
	}
}

// TestInjectionOptions: a misspelt option reaches podnotify, which refuses it by
// name; a container that is not there is refused at once.
func TestInjectionOptions(t *testing.T) {
	in := newInjector(t)
	pod := created(t, bare)
	pod.Annotations = map[string]string{
		"podnotify.io/redis.timeouts.strat": "1m", "podnotify.io/redis.expect": "none",
		"podnotify.io/redis.watchdog.interval": "0", "podnotify.io/redis.select.process": "^redis$(PATH)$",
	}
	after, err := in.inject(t, pod)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"sidecar", "--service=redis", "--select-container=redis", "--timeouts-stop=25s", "--expect=none", "--select-process=^redis$$(PATH)$$", "--watchdog-interval=0", "--timeouts-strat=1m"}
	if d := cmp.Diff(want, after.Spec.InitContainers[0].Args); d != "" {
		t.Error(d)
	}
	if env := after.Spec.Containers[0].Env; env != nil {
		t.Errorf("environment %v", env)
	}

	pod = created(t, bare)
	pod.Annotations = map[string]string{"podnotify.io/container": "rdeis"}
	if after, err := in.inject(t, pod); err == nil {
		t.Errorf("a container that is not there: %v", after.Spec.InitContainers)
	}
}
