package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// testExamples: manifests that users copy become ready as they are. Only the
// images are ours, under the names that the examples use.
func testExamples(t *testing.T, s *suite) {
	manifests := map[string]string{"kustomize": s.Kubectl(t, "kustomize", s.root+"/examples/kustomize/overlay")}
	for _, file := range glob(t, s.root+"/examples/kubernetes/*.yaml") {
		manifests[strings.TrimSuffix(filepath.Base(file), ".yaml")] = read(t, file)
	}
	for name, manifest := range manifests {
		level := "restricted"
		if name == "kustomize" {
			level = "baseline" // one of its Deployments is as careless as many are
		}
		ns := s.namespaceOf(t, "examples-"+name, level)
		s.Apply(t, manifest, "--namespace", ns)
		var pods []pod
		s.Until(t, name+" is ready", func() (bool, string) {
			var err error
			if pods, err = s.pods(ns, ""); err != nil || len(pods) != strings.Count(manifest, "kind: Deployment\n") {
				return false, fmt.Sprint(pods, err)
			}
			for _, p := range pods {
				code, body := s.ask(p, "/readyz")
				if with := p.container("podnotify").Name != ""; with != strings.HasPrefix(p.Metadata.Name, "redis") || !p.ready() || with && code != 200 {
					return false, fmt.Sprint(p, "; podnotify: ", body)
				}
			}
			return true, ""
		})
		t.Log(name, ": ", pods)
		s.Kubectl(t, "delete", "deployment", "--all", "--namespace", ns)
		s.gone(t, ns)
	}
}

// testDaemons: the values of the examples, installed as their READMEs say, over
// images that have nothing but Debian's package.
func testDaemons(t *testing.T, s *suite) {
	for _, values := range glob(t, s.root+"/examples/daemons/*/*values.yaml") {
		dir := filepath.Dir(values)
		name := filepath.Base(dir)
		release := strings.TrimSuffix(name+"-"+strings.TrimSuffix(filepath.Base(values), "values.yaml"), "-")
		ns := s.namespace(t, "daemons-"+release)
		config := []string{"create", "configmap", name, "--namespace", ns}
		for _, file := range glob(t, dir+"/*") {
			if ext := filepath.Ext(file); ext != ".md" && ext != ".yaml" {
				config = append(config, "--from-file", file)
			}
		}
		s.Kubectl(t, config...)
		s.Output(t, s.helm, "install", release, s.chart, "--namespace", ns, "--values", values, s.kubeconfig())
		var p pod
		s.Until(t, release+" is ready", func() (bool, string) {
			pods, err := s.pods(ns, "")
			if err != nil || len(pods) != 1 {
				return false, fmt.Sprint(pods, err)
			}
			p = pods[0]
			code, body := s.ask(p, "/readyz")
			return p.ready() && code == 200, fmt.Sprint(p, "; podnotify: ", body)
		})
		t.Log(release, ": ", p)
		s.Output(t, s.helm, "uninstall", release, "--namespace", ns, s.kubeconfig())
		s.gone(t, ns)
	}
}
