// Package cluster brings up Kubernetes in a machine of the tests (see
// test/e2e/machine): etcd, a control plane, one kubelet on containerd, kube-proxy
// and names for Services. Its programs are built from test/e2e/kubernetes, its
// tests install podnotify's chart and examples.
package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/podnotify/podnotify/test/e2e/containerd"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

const (
	server = "https://127.0.0.1:6443"
	// Node is the name of the only one.
	Node = "node"
	// services is where Services have their addresses.
	services = "10.246.0.0/24"
)

// gates are features that the examples and values use and that this version
// does not have on by default.
const gates = "MutatingAdmissionPolicy=true,ImageVolume=true"

// Cluster is a running Kubernetes.
type Cluster struct {
	*machine.Machine

	Containerd *containerd.Containerd
	Kubelet    *machine.Program

	bin    string // Kubernetes' programs
	dir    string
	tokens map[string]string // by user
	api    *http.Client
}

//go:embed kubelet.yaml
var kubeletConfig string

// New brings up a cluster that ends with the test.
func New(t testing.TB) *Cluster {
	t.Helper()
	began := time.Now()
	machine.NeedRoot(t)
	etcd := machine.Need(t, "etcd", "etcd-server")
	dnsmasq := machine.Need(t, "dnsmasq", "dnsmasq-base")
	machine.Need(t, "iptables", "iptables")
	bin := programs(t)
	m := machine.New(t)
	c := &Cluster{Machine: m, bin: bin, dir: filepath.Join(m.Dir, "kube"), tokens: map[string]string{}}
	c.api = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext:     m.Dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the server made its own certificate a moment ago
	}}
	for _, dir := range []string{"manifests", "root", "pods", "plugins", "certs", "names"} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.users(t)
	c.Containerd = containerd.Start(t, m)
	c.controlPlane(t, etcd)
	c.node(t, dnsmasq)
	t.Logf("cluster: up after %v", time.Since(began).Round(time.Second))
	return c
}

// programs is where Kubernetes has been built, or is now.
func programs(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("sh", "../kubernetes/build.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal("cannot build Kubernetes: ", err)
	}
	return strings.TrimSpace(string(out))
}

// users makes the keys of service accounts, and who may do what: by tokens.
func (c *Cluster) users(t testing.TB) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "accounts.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	c.write(t, "accounts.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	var tokens bytes.Buffer
	for _, u := range []struct{ name, user, groups string }{
		{"admin", "admin", "system:masters"},
		{"kubelet", "system:node:" + Node, "system:nodes"},
		{"controller-manager", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
	} {
		token := rand.Text()
		c.tokens[u.name] = token
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", token, u.user, u.name, u.groups)
		config, err := json.Marshal(map[string]any{
			"apiVersion": "v1", "kind": "Config", "current-context": "test",
			"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": server, "insecure-skip-tls-verify": true}}},
			"users":    []any{map[string]any{"name": "test", "user": map[string]any{"token": token}}},
			"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": "test"}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, u.name+".kubeconfig", config)
	}
	c.write(t, "tokens.csv", tokens.Bytes())
}

func (c *Cluster) write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) controlPlane(t testing.TB, etcd string) {
	t.Helper()
	file := func(name string) string { return filepath.Join(c.dir, name) }
	c.Run(t, "etcd", c.answers("http://127.0.0.1:2379/health"), etcd,
		"--data-dir="+file("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380")
	c.Run(t, "kube-apiserver", c.answers(server+"/readyz"), filepath.Join(c.bin, "kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1", "--advertise-address="+machine.Address, "--secure-port=6443",
		"--cert-dir="+file("certs"), "--token-auth-file="+file("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-cluster-ip-range="+services, "--service-account-issuer=https://kubernetes.test",
		"--service-account-key-file="+file("accounts.pub"), "--service-account-signing-key-file="+file("accounts.key"),
		"--allow-privileged=true", "--enable-priority-and-fairness=false",
		"--kubelet-preferred-address-types=InternalIP", // else it looks the node's name up
		"--feature-gates="+gates, "--runtime-config=admissionregistration.k8s.io/v1beta1=true")
	c.Run(t, "kube-controller-manager", c.answers("https://127.0.0.1:10257/healthz"), filepath.Join(c.bin, "kube-controller-manager"),
		"--kubeconfig="+file("controller-manager.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+file("certs"),
		"--use-service-account-credentials=true", // else RBAC stops its controllers
		"--service-account-private-key-file="+file("accounts.key"), "--root-ca-file="+file("certs/apiserver.crt"))
	c.Run(t, "kube-scheduler", c.answers("https://127.0.0.1:10259/healthz"), filepath.Join(c.bin, "kube-scheduler"),
		"--kubeconfig="+file("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir="+file("certs"))
}

func (c *Cluster) node(t testing.TB, dnsmasq string) {
	t.Helper()
	var config bytes.Buffer
	err := template.Must(template.New("kubelet").Parse(kubeletConfig)).Execute(&config, map[string]string{
		"Dir": c.dir, "Socket": c.Containerd.Address, "Cgroup": c.Cgroup, "DNS": machine.Address})
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "kubelet.yaml", config.Bytes())
	if err := c.cgroups(); err != nil {
		t.Fatal("cannot make the cgroups of pods: ", err)
	}
	c.Kubelet = c.Run(t, "kubelet", c.KubeletReady, filepath.Join(c.bin, "kubelet"),
		"--config="+filepath.Join(c.dir, "kubelet.yaml"), "--root-dir="+filepath.Join(c.dir, "root"), "--cert-dir="+filepath.Join(c.dir, "certs"),
		"--kubeconfig="+filepath.Join(c.dir, "kubelet.kubeconfig"), "--hostname-override="+Node, "--node-ip="+machine.Address, "--v=2")
	c.Run(t, "kube-proxy", c.answers("http://127.0.0.1:10256/livez"), filepath.Join(c.bin, "kube-proxy"),
		"--kubeconfig="+filepath.Join(c.dir, "proxy.kubeconfig"), "--hostname-override="+Node, "--proxy-mode=iptables",
		"--cluster-cidr="+containerd.PodNetwork,
		// Pods share a bridge: without it an answer would not come back through the
		// address that was asked.
		"--masquerade-all",
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
		"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249")
	c.Run(t, "dnsmasq", func(context.Context) error { return nil }, dnsmasq,
		"--keep-in-foreground", "--user=root", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-facility=-",
		"--listen-address="+machine.Address, "--bind-interfaces", "--local=/cluster.local/", "--hostsdir="+filepath.Join(c.dir, "names"))
	c.Until(t, "the node is ready", func() (bool, string) {
		var node struct {
			Status struct{ Conditions []Condition }
		}
		if err := c.Get("/api/v1/nodes/"+Node, &node); err != nil {
			return false, err.Error()
		}
		return is(node.Status.Conditions, "Ready"), fmt.Sprint(node.Status.Conditions)
	})
}

// cgroups makes the parent of all pods' cgroups: a kubelet wants it there.
func (c *Cluster) cgroups() error {
	if controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil { // v2
		root := "/sys/fs/cgroup" + c.Cgroup
		if err := os.Mkdir(root, 0o755); err != nil {
			return err
		}
		for _, name := range strings.Fields(string(controllers)) {
			// A kubelet says which it misses.
			_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+name), 0o644)
		}
		return nil
	}
	for _, name := range []string{"cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb", "systemd"} {
		root := filepath.Join("/sys/fs/cgroup", name)
		if _, err := os.Stat(root); err != nil {
			continue
		}
		if err := os.MkdirAll(root+c.Cgroup, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/cpuset", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join("/sys/fs/cgroup/cpuset"+c.Cgroup, name), value, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// answers is ready when a URL does.
func (c *Cluster) answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := c.fetch(ctx, url)
		return err
	}
}

func (c *Cluster) fetch(ctx context.Context, url string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+c.tokens["admin"])
	answer, err := c.api.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, answer.Status, body)
	}
	return body, err
}

// KubeletReady is nil when the kubelet answers.
func (c *Cluster) KubeletReady(ctx context.Context) error {
	return c.answers("http://127.0.0.1:10248/healthz")(ctx)
}

// RestartKubelet kills the kubelet and starts it again.
func (c *Cluster) RestartKubelet(t testing.TB) {
	t.Helper()
	c.Kubelet.Stop(syscall.SIGKILL)
	c.Kubelet.Start(t, c.KubeletReady)
}

// Get reads an object of the API.
func (c *Cluster) Get(path string, object any) error {
	body, err := c.fetch(context.Background(), server+path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, object)
}

// Kubectl runs it as the cluster's administrator.
func (c *Cluster) Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return c.Output(t, filepath.Join(c.bin, "kubectl"), append([]string{"--kubeconfig", filepath.Join(c.dir, "admin.kubeconfig")}, args...)...)
}

// TryKubectl is Kubectl where a failure is an answer.
func (c *Cluster) TryKubectl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return c.Command(ctx, filepath.Join(c.bin, "kubectl"), append([]string{"--kubeconfig", filepath.Join(c.dir, "admin.kubeconfig")}, args...)...)
}

// Apply applies a manifest, with kubectl's flags.
func (c *Cluster) Apply(t testing.TB, manifest string, flags ...string) string {
	t.Helper()
	out, err := c.TryApply(manifest, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryApply is Apply where a failure is an answer.
func (c *Cluster) TryApply(manifest string, flags ...string) (string, error) {
	f, err := os.CreateTemp(c.dir, "manifest-*.yaml")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString(manifest); err != nil {
		return "", err
	}
	return c.TryKubectl(append([]string{"apply", "-f", f.Name()}, flags...)...)
}

// Names lets pods find the Services that there are now by name.
func (c *Cluster) Names(t testing.TB) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
			Spec     struct{ ClusterIP string }
		}
	}
	if err := c.Get("/api/v1/services", &list); err != nil {
		t.Fatal(err)
	}
	var hosts strings.Builder
	for _, s := range list.Items {
		if s.Spec.ClusterIP != "None" {
			fmt.Fprintf(&hosts, "%s %s.%s.svc.cluster.local\n", s.Spec.ClusterIP, s.Metadata.Name, s.Metadata.Namespace)
		}
	}
	// A new name each time: files are read when they appear.
	f, err := os.CreateTemp(filepath.Join(c.dir, "names"), "hosts-*")
	if err == nil {
		_, err = f.WriteString(hosts.String())
		err = errors.Join(err, f.Chmod(0o644), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// bound is how long a cluster may take for one thing. It is no measure of
// speed: the machine may be busy with other work.
const bound = 3 * time.Minute

// Until waits for a condition. Its text says what is the case meanwhile.
func (c *Cluster) Until(t testing.TB, what string, ok func() (bool, string)) {
	t.Helper()
	c.Within(t, bound, what, ok)
}

// Within is Until with another bound.
func (c *Cluster) Within(t testing.TB, bound time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	for end := time.Now().Add(bound); ; time.Sleep(100 * time.Millisecond) {
		done, now := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s; it is: %s", bound, what, now)
		}
	}
}

// Condition is one of a pod, a node or another object.
type Condition struct{ Type, Status, Reason, Message string }

func is(conditions []Condition, kind string) bool {
	for _, c := range conditions {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}
