// Package cri makes pods as a kubelet does, without one: through the Container
// Runtime Interface of a containerd (see test/e2e/containerd).
package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

// bound is how long one request may take.
const bound = 2 * time.Minute

// Runtime is a connection to a container runtime.
type Runtime struct {
	v1.RuntimeServiceClient

	machine *machine.Machine
}

// Connect connects to the socket of a containerd.
func Connect(t testing.TB, m *machine.Machine, address string) *Runtime {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r := &Runtime{v1.NewRuntimeServiceClient(conn), m}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	v, err := r.Version(ctx, &v1.VersionRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal("cannot ask the container runtime: ", err)
	}
	t.Logf("%s %s, CRI %s", v.RuntimeName, v.RuntimeVersion, v.RuntimeApiVersion)
	return r
}

// Pod is a running sandbox.
type Pod struct {
	ID string
	IP string
	// Dir has one directory for each name given to Container's mounts: what a
	// kubelet would make emptyDirs of.
	Dir string

	t       testing.TB
	runtime *Runtime
	config  *v1.PodSandboxConfig
	share   bool
}

// Pod makes a pod that ends with the test. With share its containers have one
// PID namespace, as with shareProcessNamespace.
func (r *Runtime) Pod(t testing.TB, name string, share bool, annotations map[string]string) *Pod {
	t.Helper()
	uid := strconv.FormatInt(time.Now().UnixNano(), 36)
	p := &Pod{t: t, runtime: r, share: share, Dir: filepath.Join(r.machine.Dir, "pods", uid)}
	logs := filepath.Join(p.Dir, "log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	p.config = &v1.PodSandboxConfig{
		Metadata: &v1.PodSandboxMetadata{Name: name, Uid: uid, Namespace: "default"},
		Hostname: name,
		// What a kubelet writes, and others read.
		Labels: map[string]string{
			"io.kubernetes.pod.name":      name,
			"io.kubernetes.pod.namespace": "default",
			"io.kubernetes.pod.uid":       uid,
		},
		Annotations:  annotations,
		LogDirectory: logs,
		Linux: &v1.LinuxPodSandboxConfig{
			CgroupParent: filepath.Join(r.machine.Cgroup, "pod"+uid),
			SecurityContext: &v1.LinuxSandboxSecurityContext{
				NamespaceOptions: p.namespaces(),
				Seccomp:          &v1.SecurityProfile{ProfileType: v1.SecurityProfile_RuntimeDefault},
			},
		},
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	made, err := r.RunPodSandbox(ctx, &v1.RunPodSandboxRequest{Config: p.config})
	if err != nil {
		t.Fatal("cannot make a pod: ", err)
	}
	p.ID = made.PodSandboxId
	t.Cleanup(func() {
		if t.Failed() {
			p.logs(logs)
		}
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		_, err := r.StopPodSandbox(ctx, &v1.StopPodSandboxRequest{PodSandboxId: p.ID})
		if err == nil {
			_, err = r.RemovePodSandbox(ctx, &v1.RemovePodSandboxRequest{PodSandboxId: p.ID})
		}
		if err != nil {
			t.Error("cannot remove the pod: ", err)
		}
	})
	status, err := r.PodSandboxStatus(ctx, &v1.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	p.IP = status.Status.GetNetwork().GetIp()
	return p
}

func (p *Pod) namespaces() *v1.NamespaceOption {
	n := &v1.NamespaceOption{Network: v1.NamespaceMode_POD, Pid: v1.NamespaceMode_CONTAINER, Ipc: v1.NamespaceMode_POD}
	if p.share {
		n.Pid = v1.NamespaceMode_POD
	}
	return n
}

func (p *Pod) logs(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			p.t.Logf("log %s\n%s", filepath.Base(file), b)
		}
	}
}

// Container is how to run one in a pod. All of them have no capabilities, no new
// privileges and the runtime's seccomp profile, as Pod Security "restricted" asks.
type Container struct {
	Name    string
	Image   string
	UID     int64
	Args    []string
	Env     []string          // KEY=VALUE
	Mounts  map[string]string // path: name of a directory of the pod, or an absolute path of the machine
	RO      map[string]string // the same, read-only
	Attempt uint32            // how many of this name there were before
}

// Start makes and starts a container, and gives its id. As a kubelet does, it
// mounts a termination log of this instance.
func (p *Pod) Start(c Container) (id string) {
	p.t.Helper()
	config := &v1.ContainerConfig{
		Metadata: &v1.ContainerMetadata{Name: c.Name, Attempt: c.Attempt},
		Image:    &v1.ImageSpec{Image: c.Image},
		Args:     c.Args,
		LogPath:  fmt.Sprintf("%s-%d.log", c.Name, c.Attempt),
		Labels: map[string]string{
			"io.kubernetes.container.name": c.Name,
			"io.kubernetes.pod.name":       p.config.Metadata.Name,
			"io.kubernetes.pod.namespace":  p.config.Metadata.Namespace,
			"io.kubernetes.pod.uid":        p.config.Metadata.Uid,
		},
		Linux: &v1.LinuxContainerConfig{SecurityContext: &v1.LinuxContainerSecurityContext{
			NamespaceOptions: p.namespaces(),
			Capabilities:     &v1.Capability{DropCapabilities: []string{"ALL"}},
			RunAsUser:        &v1.Int64Value{Value: c.UID},
			RunAsGroup:       &v1.Int64Value{Value: c.UID},
			NoNewPrivs:       true,
			ReadonlyRootfs:   true,
			Seccomp:          &v1.SecurityProfile{ProfileType: v1.SecurityProfile_RuntimeDefault},
		}},
	}
	for _, e := range c.Env {
		k, v, _ := strings.Cut(e, "=")
		config.Envs = append(config.Envs, &v1.KeyValue{Key: k, Value: v})
	}
	for path, name := range c.Mounts {
		config.Mounts = append(config.Mounts, &v1.Mount{ContainerPath: path, HostPath: p.directory(name)})
	}
	for path, name := range c.RO {
		config.Mounts = append(config.Mounts, &v1.Mount{ContainerPath: path, HostPath: p.directory(name), Readonly: true})
	}
	log := filepath.Join(p.Dir, "kubelet/pods", p.config.Metadata.Uid, "containers", c.Name, fmt.Sprintf("%08x", c.Attempt))
	err := os.MkdirAll(filepath.Dir(log), 0o755)
	if err == nil {
		err = os.WriteFile(log, nil, 0o666)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	config.Mounts = append(config.Mounts, &v1.Mount{ContainerPath: "/dev/termination-log", HostPath: log})

	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	made, err := p.runtime.CreateContainer(ctx, &v1.CreateContainerRequest{PodSandboxId: p.ID, SandboxConfig: p.config, Config: config})
	if err == nil {
		_, err = p.runtime.StartContainer(ctx, &v1.StartContainerRequest{ContainerId: made.ContainerId})
	}
	if err != nil {
		p.t.Fatalf("cannot start container %s: %v", c.Name, err)
	}
	return made.ContainerId
}

// directory is one that every uid may write to.
func (p *Pod) directory(name string) string {
	p.t.Helper()
	if filepath.IsAbs(name) {
		return name // a hostPath
	}
	dir := filepath.Join(p.Dir, "volumes", name)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return dir
}

// PID is a container's first process, in the numbers of the machine.
func (p *Pod) PID(id string) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	s, err := p.runtime.ContainerStatus(ctx, &v1.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		p.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(s.Info["info"], `"pid":`)
	n, _ := strconv.Atoi(strings.TrimSpace(rest[:max(0, strings.IndexByte(rest, ','))]))
	if n <= 0 {
		p.t.Fatal("the runtime does not say the PID: ", s.Info["info"])
	}
	return n
}

// Running says whether a container runs.
func (p *Pod) Running(id string) bool {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	s, err := p.runtime.ContainerStatus(ctx, &v1.ContainerStatusRequest{ContainerId: id})
	return err == nil && s.Status.State == v1.ContainerState_CONTAINER_RUNNING
}
