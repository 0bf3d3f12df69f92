package charts

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
)

// warden runs examples/node/policy.yaml as an API server does, as injector runs the
// other policy.
type warden struct {
	compiler *plugincel.CompositedCompiler
	says     validating.Validator
	spaces   labels.Selector
}

func newWarden(t *testing.T) *warden {
	t.Helper()
	objects := readAll(t, root+"/examples/node/policy.yaml")
	p := into[admissionv1.ValidatingAdmissionPolicy](t, objects[0].Object)
	binding := into[admissionv1.ValidatingAdmissionPolicyBinding](t, objects[1].Object)
	if binding.Spec.PolicyName != p.Name {
		t.Fatalf("the binding is of %q, the policy is %q", binding.Spec.PolicyName, p.Name)
	}
	opts := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MustParse(kubernetes)))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range p.Spec.Variables {
		e := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, opts, environment.NewExpressions)
		if e.Error != nil {
			t.Fatalf("%s: %v", v.Name, e.Error)
		}
	}
	var conditions []plugincel.ExpressionAccessor
	for _, v := range p.Spec.Validations {
		conditions = append(conditions, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message})
	}
	validations := compiler.CompileCondition(conditions, opts, environment.NewExpressions)
	if err := validations.CompilationErrors(); len(err) > 0 {
		t.Fatalf("validations: %v", err)
	}
	none := compiler.CompileCondition(make([]plugincel.ExpressionAccessor, len(conditions)), opts, environment.NewExpressions)
	w := &warden{compiler: compiler, says: validating.NewValidator(validations, nil, compiler.CompileCondition(nil, opts, environment.NewExpressions), none, p.Spec.FailurePolicy, nil)}
	if w.spaces, err = metav1.LabelSelectorAsSelector(binding.Spec.MatchResources.NamespaceSelector); err != nil {
		t.Fatal(err)
	}
	return w
}

// refuses is what is told to who creates a pod; "" if it may be.
func (w *warden) refuses(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	attributes := admission.NewAttributesRecord(pod, nil, kind, "default", pod.Name, resource, "", admission.Create, &metav1.CreateOptions{}, false, nil)
	v, err := admission.NewVersionedAttributes(attributes, kind, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
	if err != nil {
		t.Fatal(err)
	}
	result := w.says.Validate(w.compiler.CreateContext(context.Background()), resource, v, nil, nil, celconfig.RuntimeCELCostBudget, nil)
	var out []string
	for _, d := range result.Decisions {
		if d.Evaluation == validating.EvalError {
			t.Errorf("%s: %s", pod.Name, d.Message)
		}
		if d.Action == validating.ActionDeny {
			out = append(out, d.Message)
		}
	}
	return strings.Join(out, "; ")
}

// mounting is a pod that has a directory of the host.
func mounting(path, mount string) string {
	return fmt.Sprintf(`{spec: {volumes: [{name: e, emptyDir: {}}, {name: v, hostPath: {path: %q}}], containers: [{name: a}, {name: c, volumeMounts: [{name: e, mountPath: /e}, {name: v, mountPath: /v, %s}]}]}}`, path, mount)
}

// TestNodePolicy: podnotify-node's directory is mounted read-only, or not at all.
func TestNodePolicy(t *testing.T) {
	w := newWarden(t)
	for manifest, want := range map[string]string{
		mounting("/run/podnotify/node", "readOnly: true"):                  "",
		mounting("/run/podnotify/node", "readOnly: true, subPath: notify"): "",
		mounting("/run/podnotify/node", ""):                                "readOnly: true",
		mounting("/run/podnotify/node", "readOnly: false"):                 "readOnly: true",
		mounting("/run/podnotify/node", "subPath: x"):                      "readOnly: true",
		mounting("/run/podnotify/node", "subPathExpr: x"):                  "readOnly: true",
		mounting("/run/podnotify/node/", ""):                               "readOnly: true",
		mounting("//run/./podnotify///node", ""):                           "readOnly: true",
		mounting("/var/run/podnotify/node", ""):                            "readOnly: true",
		mounting("/run/podnotify/node/notify", ""):                         "readOnly: true",
		mounting("/run", "subPath: podnotify/node"):                        "readOnly: true",
		mounting("/", "subPath: ./run//podnotify"):                         "readOnly: true",
		mounting("/run/podnotify", "readOnly: true"):                       "podnotify-node's own",
		mounting("/run/podnotify", "readOnly: true, subPath: node"):        "podnotify-node's own",
		mounting("/run/podnotify/control", "readOnly: true"):               "podnotify-node's own",
		mounting("/run/podnotify/nodes", "readOnly: true"):                 "podnotify-node's own",
		mounting("/run/podnotify-other", ""):                               "",
		mounting("/srv/run/podnotify/node", ""):                            "",
		mounting("/var/log", ""):                                           "",
		`{spec: {containers: [{name: a}]}}`:                                "",
		`{spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: a, volumeMounts: [{name: v, mountPath: /run/podnotify/node}]}]}}`: "",
		// Wherever the container is.
		strings.Replace(mounting("/run/podnotify/node", ""), "containers: [{name: a}, ", "containers: [{name: a}], initContainers: [", 1):      "readOnly: true",
		strings.Replace(mounting("/run/podnotify/node", ""), "containers: [{name: a}, ", "containers: [{name: a}], ephemeralContainers: [", 1): "readOnly: true",
	} {
		got := w.refuses(t, created(t, manifest))
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", manifest, got, want)
		}
	}
	for namespace, want := range map[string]bool{"podnotify": false, "default": true, "kube-system": true} {
		if w.spaces.Matches(labels.Set{"kubernetes.io/metadata.name": namespace}) != want {
			t.Errorf("namespace %s: not %v", namespace, want)
		}
	}
	for _, file := range []string{"redis.yaml", "daemonset.yaml"} {
		for _, o := range readAll(t, root+"/examples/node/"+file) {
			for _, p := range pods(t, rendering{name: file, objects: []*unstructured.Unstructured{o}}) {
				if got := w.refuses(t, &corev1.Pod{Spec: *p.spec}); (got == "") != (file == "redis.yaml") {
					t.Errorf("%s: %q", p.name, got)
				}
			}
		}
	}
}
