package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/podnotify/podnotify/test/e2e/image"
	"github.com/podnotify/podnotify/test/e2e/machine"
)

// The daemons are Debian's programs in images of their own, none of them made
// for podnotify. Only the last one is ours.
const (
	redis    = "podnotify.test/redis"
	haproxy  = "podnotify.test/haproxy"
	database = "podnotify.test/database"
	slow     = "podnotify.test/slow"
	mydaemon = "podnotify.test/mydaemon"
	tag      = "1"
)

// databaseEntry is what the entrypoints of database images do: a temporary
// server that only they can reach, to fill it, and then the one that stays. Both
// say READY=1, the first one STOPPING=1 too.
const databaseEntry = `#!/bin/sh
set -eu
redis-server --supervised systemd --bind 127.0.0.1 --dir /data --save '' --appendonly no &
until [ "$(redis-cli ping 2>/dev/null)" = PONG ]; do sleep 0.1; done
redis-cli set filled yes
sleep 5
redis-cli shutdown save
wait
sleep 2
exec redis-server --supervised systemd --dir /data --bind '*' --protected-mode no
`

// slowEntry takes longer than any probe would wait, and says so: 350 s, while
// timeouts.start is 90 s and kubelet's liveness budget 320 s.
const slowEntry = `#!/bin/sh
set -eu
i=0
while [ "$i" -lt 35 ]; do
	podnotify send EXTEND_TIMEOUT_USEC=40000000 "STATUS=step $i of 35"
	sleep 10
	i=$((i + 1))
done
exec redis-server --supervised systemd --bind '*' --protected-mode no --save ''
`

// images imports the daemons, and podnotify as it is shipped; it gives the
// latter's name and tag.
func images(t *testing.T, c *Cluster, root string) (string, string) {
	t.Helper()
	for program, debian := range map[string]string{
		"redis-server": "redis-server", "redis-cli": "redis-tools", "haproxy": "haproxy", "named": "bind9", "mosquitto": "mosquitto", "unbound": "unbound", "dash": "dash", "ldd": "libc-bin",
	} {
		machine.Need(t, program, debian)
	}
	programs := filepath.Join(c.Dir, "programs")
	if err := os.MkdirAll(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, pkg := range map[string]string{"podnotify": "./cmd/podnotify", "mydaemon": "./examples/mydaemon/go"} {
		if err := image.Build(filepath.Join(programs, name), root, pkg); err != nil {
			t.Fatal(err)
		}
	}
	shell := func(i *image.Image, programs ...string) {
		dash := machine.Need(t, "dash", "dash")
		i.Program("dash")
		i.Copy(dash, "/bin/sh", 0o755)
		for _, p := range programs {
			i.Program(p)
		}
	}
	user := "65532:65532"

	r := image.Image{Name: redis + ":" + tag, User: user, Cmd: []string{"redis-server"}, WorkingDir: "/data"}
	r.Program("redis-server")
	r.Dir("/data", 0o777)

	h := image.Image{Name: haproxy + ":" + tag, User: user, Entrypoint: []string{"haproxy"}}
	h.Program("haproxy")

	m := image.Image{Name: mydaemon + ":" + tag, User: user, Entrypoint: []string{"/mydaemon"}}
	m.Copy(filepath.Join(programs, "mydaemon"), "/mydaemon", 0o755)

	d := image.Image{Name: database + ":" + tag, User: user, Entrypoint: []string{"/entrypoint"}}
	d.File("/entrypoint", 0o755, []byte(databaseEntry))
	d.Program("redis-server")
	shell(&d, "redis-cli", "sleep")

	s := image.Image{Name: slow + ":" + tag, User: user, Entrypoint: []string{"/entrypoint"}}
	s.File("/entrypoint", 0o755, []byte(slowEntry))
	s.Program("redis-server")
	s.Copy(filepath.Join(programs, "podnotify"), "/usr/bin/podnotify", 0o755)
	shell(&s, "sleep")

	all := []*image.Image{&r, &h, &m, &d, &s}
	for repository, program := range map[string]string{"haproxy": "haproxy", "bind9": "named", "mosquitto": "mosquitto", "unbound": "unbound"} {
		i := image.Image{Name: "docker.io/library/" + repository + ":debian", User: user}
		i.Program(program)
		all = append(all, &i)
	}
	for _, i := range all {
		if len(i.Env) == 0 {
			i.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
		}
		archive := filepath.Join(c.Dir, "image.tar")
		if err := i.Write(archive); err != nil {
			t.Fatal(err)
		}
		c.Containerd.Import(t, archive, "k8s.io")
	}
	dist := filepath.Join(c.Dir, "dist")
	if out, err := exec.Command("make", "-C", root, "image", "DIST="+dist).CombinedOutput(); err != nil {
		t.Fatalf("cannot make podnotify's image: %v\n%s", err, out)
	}
	archive := filepath.Join(dist, "podnotify-image-"+runtime.GOARCH+".tar")
	c.Containerd.Import(t, archive, "k8s.io")
	manifest, err := exec.Command("tar", "-xOf", archive, "manifest.json").Output()
	var images []struct{ RepoTags []string }
	if err == nil {
		err = json.Unmarshal(manifest, &images)
	}
	if err != nil || len(images) != 1 || len(images[0].RepoTags) != 1 {
		t.Fatalf("cannot tell the name of podnotify's image: %v: %s", err, manifest)
	}
	// What the examples call them.
	for _, name := range []string{"redis:7", "redis:8", "web:1"} {
		c.Containerd.Tag(t, redis+":"+tag, "docker.io/library/"+name)
	}
	c.Containerd.Tag(t, "docker.io/"+images[0].RepoTags[0], "docker.io/podnotify/podnotify:0.1.0")
	at := strings.LastIndex(images[0].RepoTags[0], ":")
	return images[0].RepoTags[0][:at], images[0].RepoTags[0][at+1:]
}
