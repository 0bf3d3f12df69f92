package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

// testNode: the DaemonSet of podnotify-node as the example has it, what it serves, and
// the policy that guards its directory. The image is ours, under the example's name.
func testNode(t *testing.T, s *suite) {
	dist := filepath.Join(s.Dir, "dist-node")
	if out, err := exec.Command("make", "-C", s.root, "image", "IMAGE=podnotify-node", "DIST="+dist).CombinedOutput(); err != nil {
		t.Fatalf("cannot make podnotify-node's image: %v\n%s", err, out)
	}
	archive := filepath.Join(dist, "podnotify-node-image-"+runtime.GOARCH+".tar")
	s.Containerd.Import(t, archive, "k8s.io")
	manifest, err := exec.Command("tar", "-xOf", archive, "manifest.json").Output()
	var made []struct{ RepoTags []string }
	if err == nil {
		err = json.Unmarshal(manifest, &made)
	}
	if err != nil || len(made) != 1 || len(made[0].RepoTags) == 0 {
		t.Fatalf("what is in the image: %v %s", err, manifest)
	}
	s.Containerd.Tag(t, "docker.io/"+strings.TrimPrefix(made[0].RepoTags[0], "docker.io/"), "docker.io/podnotify/podnotify-node:0.1.0")
	// Where containerd is on every other machine, and as open as it makes it there: here its
	// shims have made it, maybe, which nobody can enter without CAP_DAC_OVERRIDE.
	s.Output(t, "mkdir", "-p", "/run/containerd")
	s.Output(t, "chmod", "711", "/run/containerd")
	s.Output(t, "touch", "/run/containerd/containerd.sock")
	s.Output(t, "mount", "--bind", s.Containerd.Address, "/run/containerd/containerd.sock")

	s.Apply(t, read(t, s.root+"/examples/node/policy.yaml"))
	s.Apply(t, read(t, s.root+"/examples/node/daemonset.yaml"))
	t.Cleanup(func() {
		if t.Failed() {
			s.show(t, "podnotify")
		}
	})
	agent := func() pod {
		t.Helper()
		var p pod
		s.Until(t, "podnotify-node runs", func() (bool, string) {
			pods, err := s.pods("podnotify", "")
			if err != nil || len(pods) != 1 {
				return false, fmt.Sprint(pods, err)
			}
			p = pods[0]
			return p.Metadata.DeletionTimestamp == "" && p.ready(), p.String()
		})
		return p
	}
	first := agent()
	t.Log(first)
	get := func(path string) (int, string) {
		answer, err := s.client.Get("http://" + machine.Address + ":19119" + path)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, strings.TrimSpace(string(b))
	}

	ns := s.namespaceOf(t, "node", "privileged") // hostPath
	s.Apply(t, read(t, s.root+"/examples/node/redis.yaml"), "--namespace", ns)
	var redis pod
	path := func() string { return "node/" + redis.Metadata.Name + "/redis" }
	agree := func(want bool) {
		t.Helper()
		s.Until(t, fmt.Sprintf("redis is ready: %v", want), func() (bool, string) {
			pods, err := s.pods(ns, "")
			if err != nil || len(pods) != 1 {
				return false, fmt.Sprint(pods, err)
			}
			redis = pods[0]
			code, body := get("/readyz/" + path())
			return redis.ready() == want && (code == 200) == want, fmt.Sprint(redis, "; podnotify-node: ", body)
		})
	}
	agree(true)
	_, body := get("/statusz/" + path())
	var f struct {
		Main     struct{ PID, InnerPID int }
		Warnings []string
	}
	if err := json.Unmarshal([]byte(body), &f); err != nil || f.Main.InnerPID != 1 || f.Main.PID != s.pid(t, redis.container("redis")) || len(f.Warnings) > 0 {
		t.Errorf("status of redis (%v) is %s", err, body)
	}
	t.Logf("%v; podnotify-node says %s", redis, body)
	out := s.Kubectl(t, "exec", "--namespace", "podnotify", first.Metadata.Name, "--container=podnotify-node", "--", "/podnotify-node", "status")
	if !strings.Contains(out, path()) {
		t.Errorf("podnotify-node status shows %s", out)
	}
	t.Log("\n" + out)
	// Nothing but what it was given: it signals a daemon of another user.
	s.Kubectl(t, "exec", "--namespace", "podnotify", first.Metadata.Name, "--container=podnotify-node", "--", "/podnotify-node", "kill", "--signal=STOP", path())
	agree(false)
	s.Kubectl(t, "exec", "--namespace", "podnotify", first.Metadata.Name, "--container=podnotify-node", "--", "/podnotify-node", "kill", "--signal=CONT", path())
	agree(true)

	// Another podnotify-node adopts what the last one knew.
	s.Kubectl(t, "delete", "pod", "--namespace", "podnotify", first.Metadata.Name)
	if second := agent(); second.Metadata.UID == first.Metadata.UID {
		t.Errorf("it is still %v", second)
	}
	agree(true)
	if _, body := get("/statusz/" + path()); !strings.Contains(body, `"adopted":true`) || redis.container("redis").RestartCount != 0 {
		t.Errorf("it is not adopted: %s; %v", body, redis)
	}

	// Whoever might write where all pods look is not let in.
	probe := func(path, mount string) (string, error) {
		return s.TryApply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {
			"volumes": [{"name": "v", "hostPath": {"path": %q}}],
			"containers": [{"name": "a", "image": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"%s}]}]}}`, path, mount), "--namespace", ns, "--dry-run=server")
	}
	s.Until(t, "the policy is in force", func() (bool, string) {
		out, err := probe("/run/podnotify/node", "")
		return err != nil && strings.Contains(err.Error(), "readOnly: true"), out
	})
	for _, p := range [][2]string{{"/run/podnotify", `, "readOnly": true`}, {"/var/run//podnotify/node", ""}, {"/run/podnotify/node", `, "subPath": "x"`}} {
		if out, err := probe(p[0], p[1]); err == nil || !strings.Contains(err.Error(), "podnotify-node") {
			t.Errorf("a pod with %q is let in: %v %s", p, err, out)
		}
	}
	for _, p := range [][2]string{{"/run/podnotify/node", `, "readOnly": true`}, {"/var/log", ""}} {
		if out, err := probe(p[0], p[1]); err != nil {
			t.Errorf("a pod with %q is not let in: %v %s", p, err, out)
		}
	}
	if out, err := s.TryKubectl("debug", redis.Metadata.Name, "--namespace", ns, "--image=redis:8", "--target=redis", "--profile=general", "--", "true"); err != nil {
		t.Errorf("an ephemeral container that mounts nothing: %v %s", err, out)
	}
	var policy struct {
		Status struct {
			TypeChecking struct{ ExpressionWarnings []any }
		}
	}
	if err := s.Get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/podnotify-node", &policy); err != nil || len(policy.Status.TypeChecking.ExpressionWarnings) > 0 {
		t.Errorf("the policy: %v %v", err, policy.Status.TypeChecking.ExpressionWarnings)
	}
	s.Kubectl(t, "delete", "deployment", "--all", "--namespace", ns)
	s.gone(t, ns)
	s.Kubectl(t, "delete", "namespace", "podnotify")
}
