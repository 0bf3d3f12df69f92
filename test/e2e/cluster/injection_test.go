package cluster

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// deployment is one that knows nothing of podnotify but for a label.
func deployment(name string, label bool, annotations, args string) string {
	inject := ""
	if label {
		inject = `podnotify.io/inject: "true", `
	}
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app.kubernetes.io/instance: %[1]s}}
  template:
    metadata:
      labels: {%[2]sapp.kubernetes.io/instance: %[1]s}
      annotations: {%[3]s}
    spec:
      securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: %[1]s
          image: redis:8
          args: [redis-server, %[4]s, --bind, "*", --protected-mode, "no"]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`, name, inject, annotations, args)
}

// testInjection: the policy of the examples brings podnotify to pods that ask for
// it, and to no others.
func testInjection(t *testing.T, s *suite) {
	ns := s.namespace(t, "injection")
	policy := read(t, s.root+"/examples/injection/policy.yaml")
	if err := s.Get("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies", &struct{}{}); err != nil {
		// It is written for Kubernetes 1.36. In this one the same is called v1beta1.
		t.Logf("%s: the policy is applied as v1beta1, since v1 is not served", s.version(t))
		policy = strings.ReplaceAll(policy, "admissionregistration.k8s.io/v1\n", "admissionregistration.k8s.io/v1beta1\n")
	}
	s.Apply(t, policy)
	probe := `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "labels": {"podnotify.io/inject": "true"}}, "spec": {"containers": [
		{"name": "a", "image": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
		"securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}}}}`
	s.Until(t, "the policy is in force", func() (bool, string) {
		out, err := s.TryApply(probe, "--namespace", ns, "--dry-run=server", "--output=json")
		return err == nil && strings.Contains(out, "/healthz"), out
	})

	releases := []*release{}
	for _, d := range []struct{ name, manifest string }{
		{"asked", deployment("asked", true, "", "--supervised, systemd")},
		{"stops", deployment("stops", true, "podnotify.io/stops.expect: stop", "--supervised, upstart")},
		{"silent", deployment("silent", false, "", "--supervised, auto")},
	} {
		s.Apply(t, d.manifest, "--namespace", ns)
		releases = append(releases, &release{suite: s, t: t, namespace: ns, name: d.name})
	}
	for _, r := range releases[:2] {
		p := r.until(r.name+" is ready", func(p pod) bool { return r.agree(p, true) })
		if len(p.Spec.InitContainers) != 1 || p.Spec.InitContainers[0].Name != "podnotify" {
			t.Errorf("init containers of %s: %v", r.name, p.Spec.InitContainers)
		}
		if err := r.ping(p); err != nil {
			t.Error(err)
		}
		t.Logf("%v; podnotify says %+v", p, r.facts(p))
		s.kill(t, "STOP", p.container(r.name))
		p = r.until(r.name+" is not ready", func(p pod) bool { return r.agree(p, false) })
		s.kill(t, "CONT", p.container(r.name))
		r.until(r.name+" is ready again", func(p pod) bool { return r.agree(p, true) })
	}
	silent := releases[2].until("the unlabelled pod runs", pod.ready)
	if len(silent.Spec.InitContainers) != 0 || len(silent.Spec.Containers) != 1 {
		t.Errorf("a pod that did not ask: %v", silent)
	}
	t.Logf("%v: not labelled, nothing injected", silent)

	// Whatever is applied again stays as it is: the Deployment, the policy, and a pod
	// that has been through it.
	generations := func() string {
		return s.Kubectl(t, "get", "deployment/asked", "mutatingadmissionpolicy/podnotify", "--namespace", ns, "--output=jsonpath={.items[*].metadata.generation}")
	}
	before := generations()
	s.Apply(t, deployment("asked", true, "", "--supervised, systemd"), "--namespace", ns)
	s.Apply(t, policy)
	if after := generations(); after != before {
		t.Errorf("applied again, the generations are %s, and were %s", after, before)
	}
	p, err := releases[0].pod()
	if err != nil {
		t.Fatal(err)
	}
	once := s.podSpec(t, s.Kubectl(t, "get", "pod", p.Metadata.Name, "--namespace", ns, "--output=json"))
	again, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "spec": once,
		"metadata": map[string]any{"name": "again", "labels": map[string]string{"podnotify.io/inject": "true"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	twice := s.podSpec(t, s.Apply(t, string(again), "--namespace", ns, "--dry-run=server", "--output=json"))
	if !reflect.DeepEqual(once, twice) {
		t.Errorf("a pod with podnotify was changed:\n%v\n%v", once, twice)
	} else {
		t.Log("applied twice: nothing changed")
	}
	s.Kubectl(t, "delete", "deployment", "--all", "--namespace", ns)
	s.gone(t, ns)
}

// podSpec reads a pod that kubectl shows.
func (s *suite) podSpec(t *testing.T, text string) map[string]any {
	t.Helper()
	var p struct{ Spec map[string]any }
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return p.Spec
}

// gone waits until a namespace has no pods.
func (s *suite) gone(t *testing.T, namespace string) {
	t.Helper()
	s.Until(t, "no pod is left in "+namespace, func() (bool, string) {
		pods, err := s.pods(namespace, "")
		return err == nil && len(pods) == 0, fmt.Sprint(pods, err)
	})
}
