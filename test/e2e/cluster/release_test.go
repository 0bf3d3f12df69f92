package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// suite is a cluster with what the tests install from.
type suite struct {
	*Cluster

	helm            string
	root, chart     string // absolute: commands start in the machine's /
	client          *http.Client
	repository, tag string // of podnotify's image
}

// namespace makes one that lets only restricted pods in, and shows what is in it
// when the test fails.
func (s *suite) namespace(t *testing.T, name string) string {
	t.Helper()
	return s.namespaceOf(t, name, "restricted")
}

// namespaceOf makes one with a level of Pod Security.
func (s *suite) namespaceOf(t *testing.T, name, level string) string {
	t.Helper()
	s.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s
  labels:
    pod-security.kubernetes.io/enforce: %[2]s
    pod-security.kubernetes.io/warn: %[2]s
`, name, level))
	s.Until(t, "the namespace has its service account", func() (bool, string) {
		var account any
		err := s.Get("/api/v1/namespaces/"+name+"/serviceaccounts/default", &account)
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() {
		if t.Failed() {
			s.show(t, name)
		}
	})
	return name
}

// show is what one would look at first.
func (s *suite) show(t *testing.T, namespace string) {
	for _, args := range [][]string{
		{"get", "all,endpointslices", "-n", namespace, "-o", "wide"},
		{"get", "pods", "-n", namespace, "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{.status}{"\n"}{end}`},
		{"get", "events", "-n", namespace, "--sort-by=.lastTimestamp"},
	} {
		out, err := s.TryKubectl(args...)
		t.Log("kubectl ", strings.Join(args, " "), "\n", out, err)
	}
	pods, _ := s.pods(namespace, "")
	for _, p := range pods {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			for _, flag := range []string{"--previous=false", "--previous=true"} {
				if out, err := s.TryKubectl("logs", "-n", namespace, p.Metadata.Name, "-c", c.Name, "--tail=40", flag); err == nil {
					t.Logf("logs %s %s %s\n%s", p.Metadata.Name, c.Name, flag, out)
				}
			}
		}
		if p.Status.PodIP != "" {
			_, body := s.ask(p, "/statusz")
			t.Logf("statusz %s\n%s", p.Metadata.Name, body)
		}
	}
}

// pod is what these tests read of one.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
	}
	Spec struct {
		InitContainers, Containers []struct{ Name string }
	}
	Status struct {
		PodIP                                    string
		Conditions                               []Condition
		InitContainerStatuses, ContainerStatuses []container
	}
}

type container struct {
	Name         string
	ContainerID  string
	RestartCount int
	Ready        bool
	State        struct {
		Waiting *struct{ Reason string }
		Running *struct{ StartedAt string }
	}
	LastState struct {
		Terminated *struct {
			ExitCode int
			Reason   string
		}
	}
}

func (p pod) ready() bool { return is(p.Status.Conditions, "Ready") }

func (p pod) container(name string) container {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	return container{}
}

func (p pod) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod %s ready=%v", p.Metadata.Name, p.ready())
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		fmt.Fprintf(&b, " %s(ready=%v restarts=%d", c.Name, c.Ready, c.RestartCount)
		if c.State.Waiting != nil {
			fmt.Fprintf(&b, " waiting: %s", c.State.Waiting.Reason)
		}
		b.WriteString(")")
	}
	return b.String()
}

func (s *suite) pods(namespace, release string) ([]pod, error) {
	var list struct{ Items []pod }
	path := "/api/v1/namespaces/" + namespace + "/pods"
	if release != "" {
		path += "?labelSelector=app.kubernetes.io%2Finstance%3D" + release
	}
	err := s.Get(path, &list)
	return list.Items, err
}

// release is an installed chart with one pod.
type release struct {
	*suite

	t         *testing.T
	namespace string
	name      string // of the release, the Service and the daemon's container
	flags     []string
}

// install installs the chart with values. The images are those of the tests, the
// rest is the chart's default.
func (s *suite) install(t *testing.T, namespace, name, image, values string, flags ...string) *release {
	t.Helper()
	r := &release{suite: s, t: t, namespace: namespace, name: name}
	r.flags = append([]string{"--namespace", namespace, "--set", "podnotify.image.repository=" + s.repository, "--set-string", "podnotify.image.tag=" + s.tag,
		"--set", "daemon.image.repository=" + image, "--set-string", "daemon.image.tag=" + tag, "--set", "fullnameOverride=" + name}, flags...)
	r.Helm("install", values)
	return r
}

// Helm installs or upgrades.
func (r *release) Helm(verb, values string, flags ...string) {
	r.t.Helper()
	file := filepath.Join(r.Dir, r.namespace+"-"+r.name+".yaml")
	if err := os.WriteFile(file, []byte(values), 0o644); err != nil {
		r.t.Fatal(err)
	}
	args := append([]string{verb, r.name, r.suite.chart, "--values", file}, r.flags...)
	r.Output(r.t, r.helm, append(append(args, flags...), r.kubeconfig())...)
}

func (s *suite) kubeconfig() string {
	return "--kubeconfig=" + filepath.Join(s.dir, "admin.kubeconfig")
}

// pod is the only one that is not being deleted.
func (r *release) pod() (pod, error) {
	all, err := r.pods(r.namespace, r.name)
	var alive []pod
	for _, p := range all {
		if p.Metadata.DeletionTimestamp == "" && !strings.Contains(p.Metadata.Name, "-test-") {
			alive = append(alive, p)
		}
	}
	if err == nil && len(alive) != 1 {
		err = fmt.Errorf("%d pods", len(alive))
	}
	if err != nil {
		return pod{}, err
	}
	return alive[0], nil
}

// until waits until the pod is as it should.
func (r *release) until(what string, ok func(pod) bool) pod {
	r.t.Helper()
	return r.within(bound, what, ok)
}

func (r *release) within(d time.Duration, what string, ok func(pod) bool) (p pod) {
	r.t.Helper()
	r.Within(r.t, d, what, func() (bool, string) {
		var err error
		if p, err = r.pod(); err != nil {
			return false, err.Error()
		}
		if ok(p) {
			return true, ""
		}
		_, body := r.ask(p, "/readyz/"+r.name)
		return false, p.String() + "; podnotify: " + body
	})
	return p
}

// agree is whether podnotify and kubelet both say that the pod is ready, or both
// that it is not. After its own start kubelet 1.34 says that a pod is Ready until
// the first probe is answered, so it is not believed alone.
func (r *release) agree(p pod, want bool) bool {
	code, _ := r.ask(p, "/readyz/"+r.name)
	return p.ready() == want && (code == 200) == want
}

// serving waits until the pod is Ready, or not, and until the Service's
// EndpointSlice says the same.
func (r *release) serving(want bool) pod {
	r.t.Helper()
	p := r.until(fmt.Sprintf("%s is ready: %v", r.name, want), func(p pod) bool { return r.agree(p, want) })
	r.Until(r.t, fmt.Sprintf("the EndpointSlice has %s: %v", r.name, want), func() (bool, string) {
		addresses, err := r.endpoints()
		if err != nil {
			return false, err.Error()
		}
		found := false
		for _, a := range addresses {
			found = found || a == p.Status.PodIP
		}
		return found == want, fmt.Sprint(addresses)
	})
	return p
}

// endpoints is which addresses the Service is to be sent to.
func (r *release) endpoints() ([]string, error) {
	var list struct {
		Items []struct {
			Endpoints []struct {
				Addresses  []string
				Conditions struct{ Ready bool }
			}
		}
	}
	err := r.Get("/apis/discovery.k8s.io/v1/namespaces/"+r.namespace+"/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D"+r.name, &list)
	var ready []string
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready {
				ready = append(ready, e.Addresses...)
			}
		}
	}
	return ready, err
}

// ask asks the podnotify of a pod; code 0 is no answer.
func (s *suite) ask(p pod, path string) (code int, body string) {
	if p.Status.PodIP == "" {
		return 0, "no address yet"
	}
	answer, err := s.client.Get("http://" + p.Status.PodIP + ":19119" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, strings.TrimSpace(string(b))
}

// facts is what these tests read of /statusz/NAME.
type facts struct {
	Phase    string
	Status   string
	Adopted  bool
	Main     struct{ PID int }
	Counters struct{ Datagrams, Pings int }
}

func (r *release) facts(p pod) (f facts) {
	r.t.Helper()
	code, body := r.ask(p, "/statusz/"+r.name)
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		r.t.Fatalf("GET /statusz/%s is %d %s", r.name, code, body)
	}
	return f
}

// pid is the first process of a container, in the numbers of the machine, or 0.
func (s *suite) pid(t *testing.T, c container) int {
	t.Helper()
	id := strings.TrimPrefix(c.ContainerID, "containerd://")
	out, err := s.Containerd.Ctr(t.Context(), "k8s.io", "tasks", "ls")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == id && f[2] == "RUNNING" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}

// kill signals the first process of a container, which must run.
func (s *suite) kill(t *testing.T, signal string, c container) {
	t.Helper()
	n := s.pid(t, c)
	if n == 0 {
		t.Fatalf("container %s does not run", c.Name)
	}
	s.Output(t, "kill", "-"+signal, strconv.Itoa(n))
}

// uninstall leaves nothing.
func (r *release) uninstall() {
	r.t.Helper()
	r.Output(r.t, r.helm, "uninstall", r.name, "--namespace", r.namespace, r.kubeconfig())
	r.Until(r.t, "nothing is left of "+r.name, func() (bool, string) {
		out, err := r.TryKubectl("get", "all,configmaps,secrets,serviceaccounts,endpointslices,poddisruptionbudgets,persistentvolumeclaims",
			"--namespace", r.namespace, "--selector", "app.kubernetes.io/instance="+r.name, "--output", "name")
		return err == nil && strings.TrimSpace(out) == "", out
	})
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file is %s: %v", pattern, err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
