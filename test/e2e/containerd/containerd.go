// Package containerd runs Debian's containerd and runc in a machine of the
// tests (see test/e2e/machine), with a bridge for pods that have a network of
// their own. It imports images and asks ctr; for pods see test/e2e/cri.
//
// The tests of podnotify-node can use it too: the agent has to run in the same
// machine (Machine.Start), since PIDs are those of the machine's namespace.
package containerd

import (
	"bytes"
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"testing"
	"text/template"
	"time"

	"github.com/podnotify/podnotify/test/e2e/image"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

// PodNetwork is where pods have their addresses.
const PodNetwork = "10.249.0.0/24"

// Pause is the image of a pod's first process.
const Pause = "podnotify.test/pause:1"

// Containerd is a running containerd. It ends with its machine.
type Containerd struct {
	Address string // of its socket, the same inside the machine and outside

	*machine.Program

	machine *machine.Machine
	dir     string
}

//go:embed config.toml
var config string

//go:embed bridge.json
var bridge string

// Start starts containerd and waits until it answers.
func Start(t testing.TB, m *machine.Machine) *Containerd {
	t.Helper()
	machine.Need(t, "containerd", "containerd")
	machine.Need(t, "runc", "runc")
	if _, err := os.Stat("/usr/lib/cni/bridge"); err != nil {
		machine.Lacking(t, "missing /usr/lib/cni/bridge; apt-get install containernetworking-plugins")
	}
	dir := filepath.Join(m.Dir, "ctrd")
	c := &Containerd{Address: filepath.Join(dir, "containerd.sock"), machine: m, dir: dir}
	if err := os.MkdirAll(filepath.Join(dir, "cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.toml": config, "cni/10-bridge.conflist": bridge} {
		var b bytes.Buffer
		err := template.Must(template.New(name).Parse(text)).Execute(&b, map[string]string{"Dir": dir, "Pause": Pause, "PodNetwork": PodNetwork})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Program = m.Run(t, "containerd", c.Ready, "containerd", "--config", filepath.Join(dir, "config.toml"))
	c.importPause(t)
	return c
}

// Ready is nil when containerd answers.
func (c *Containerd) Ready(ctx context.Context) error {
	_, err := c.Ctr(ctx, "default", "version")
	return err
}

// Ctr asks containerd's own client, in a namespace of containerd ("k8s.io" has
// the pods and their images).
func (c *Containerd) Ctr(ctx context.Context, namespace string, args ...string) (string, error) {
	return c.machine.Command(ctx, "ctr", append([]string{"--address", c.Address, "--namespace", namespace}, args...)...)
}

// Import brings an image into the namespaces, from an archive that "docker
// save" or test/e2e/image could have made.
func (c *Containerd) Import(t testing.TB, archive string, namespaces ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, namespace := range namespaces {
		if _, err := c.Ctr(ctx, namespace, "images", "import", archive); err != nil {
			t.Fatal("cannot import an image: ", err)
		}
	}
}

// Tag gives an image another name, in the namespace of pods.
func (c *Containerd) Tag(t testing.TB, name, as string) {
	t.Helper()
	if _, err := c.Ctr(context.Background(), "k8s.io", "images", "tag", "--force", name, as); err != nil {
		t.Fatal("cannot name an image: ", err)
	}
}

func (c *Containerd) importPause(t testing.TB) {
	t.Helper()
	program, archive := filepath.Join(c.dir, "pause"), filepath.Join(c.dir, "pause.tar")
	i := image.Image{Name: Pause, User: "65532:65532", Entrypoint: []string{"/pause"}}
	err := image.Build(program, "", "github.com/podnotify/podnotify/test/e2e/containerd/pause")
	if err == nil {
		i.Copy(program, "/pause", 0o755)
		err = i.Write(archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Import(t, archive, "k8s.io")
}
