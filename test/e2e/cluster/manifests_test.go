package cluster

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// What manifests name and a dry run looks for.
const named = `
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, plural: podmonitors, singular: podmonitor, listKind: PodMonitorList}
  scope: Namespaced
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// testManifests: the API server takes what the chart renders from each of its
// examples of values, and what the other examples say, with no field that it
// does not know; and Pod Security "restricted" lets the pods in.
func testManifests(t *testing.T, s *suite) {
	ns := s.namespace(t, "manifests")
	s.Apply(t, named)
	s.Until(t, "PodMonitors are served", func() (bool, string) {
		var list any
		err := s.Get("/apis/monitoring.coreos.com/v1/podmonitors", &list)
		return err == nil, fmt.Sprint(err)
	})
	version := s.version(t)
	for _, file := range glob(t, s.chart+"/ci/*-values.yaml") {
		name := strings.TrimSuffix(filepath.Base(file), "-values.yaml")
		t.Run(name, func(t *testing.T) {
			args := []string{"template", "release", s.chart, "--values", file, "--namespace", ns, "--kube-version", version}
			if strings.Contains(name, "1.36") {
				out, err := s.Command(t.Context(), s.helm, args...)
				if err == nil || !strings.Contains(err.Error(), "1.36") {
					t.Errorf("values for Kubernetes 1.36 are to be refused for %s; helm says: %v %s", version, err, out)
				}
				t.Logf("refused for %s, as it has to be", version)
				return
			}
			s.dryRun(t, ns, s.Output(t, s.helm, args...))
		})
	}
	for _, file := range glob(t, s.root+"/examples/kubernetes/*.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s.dryRun(t, ns, read(t, file))
		})
	}
}

// version is the API server's.
func (s *suite) version(t *testing.T) string {
	t.Helper()
	var v struct{ GitVersion string }
	if err := s.Get("/version", &v); err != nil {
		t.Fatal(err)
	}
	return v.GitVersion
}

// dryRun gives manifests to the API server, and the pods that would come of them.
func (s *suite) dryRun(t *testing.T, namespace, manifest string) {
	t.Helper()
	out := s.Apply(t, manifest, "--namespace", namespace, "--dry-run=server", "--validate=strict", "--output=json")
	// Warnings come first.
	warnings, list, found := strings.Cut(out, "{")
	if strings.Contains(warnings, "Warning") {
		t.Error(warnings)
	}
	type object struct {
		Kind     string
		Metadata struct{ Name string }
		Items    []json.RawMessage
		Spec     struct {
			Template *struct {
				Metadata map[string]any `json:"metadata"`
				Spec     map[string]any `json:"spec"`
			}
			VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
		}
	}
	var all object
	if err := json.Unmarshal([]byte("{"+list), &all); !found || err != nil {
		t.Fatalf("cannot read what kubectl says: %v\n%s", err, out)
	}
	if all.Kind != "List" {
		all.Items = []json.RawMessage{json.RawMessage("{" + list)}
	}
	var seen []string
	for _, item := range all.Items {
		var o object
		if err := json.Unmarshal(item, &o); err != nil {
			t.Fatal(err)
		}
		seen = append(seen, o.Kind)
		if o.Spec.Template == nil || o.Kind == "Service" {
			continue
		}
		// Pod Security judges pods, and only warns of what makes them.
		p := o.Spec.Template
		delete(p.Spec, "serviceAccountName") // it is not there: this is a dry run
		delete(p.Spec, "serviceAccount")
		for _, claim := range o.Spec.VolumeClaimTemplates { // as the controller does
			volumes, _ := p.Spec["volumes"].([]any)
			name := claim.Metadata.Name
			p.Spec["volumes"] = append(volumes, map[string]any{"name": name, "persistentVolumeClaim": map[string]any{"claimName": name + "-0"}})
		}
		p.Metadata["name"] = o.Metadata.Name
		b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": p.Metadata, "spec": p.Spec})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := s.TryApply(string(b), "--namespace", namespace, "--dry-run=server", "--validate=strict"); err != nil || strings.Contains(out, "Warning") {
			t.Errorf("the pod of %s %s is not let in: %v %s", o.Kind, o.Metadata.Name, err, out)
		}
		seen = append(seen, "its Pod")
	}
	t.Log("accepted: ", strings.Join(seen, ", "))
}
