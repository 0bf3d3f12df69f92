package proc

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestHolds(t *testing.T) {
	cg := func(s string) Container { return Container{Cgroup: normal(s)} }
	for _, c := range []struct {
		name      string
		top, path string
		holds     bool
	}{
		{"v2 same", "0::/a/b\n", "0::/a/b\n", true},
		{"v2 below", "0::/a\n", "0::/a/b\n", true},
		{"v2 above", "0::/a/b\n", "0::/a\n", false},
		{"v2 sibling", "0::/a/b\n", "0::/a/c\n", false},
		{"v2 longer name", "0::/a/b\n", "0::/a/bc\n", false},
		{"v2 root", "0::/\n", "0::/a\n", true},
		{"v2 our own and a sibling container", "0::/\n", "0::/../x\n", false},
		{"v2 sibling and our own", "0::/../x\n", "0::/\n", false},
		{"v2 sibling and below it", "0::/../x\n", "0::/../x/y\n", true},
		{"v2 siblings", "0::/../x\n", "0::/../y\n", false},
		{"v2 the Pod and our own", "0::/..\n", "0::/\n", true},
		{"v2 the Pod and below our own", "0::/..\n", "0::/a\n", true},
		{"v2 the Pod and a sibling", "0::/..\n", "0::/../x\n", true},
		{"v2 the Pod and its slice", "0::/..\n", "0::/../..\n", false},
		{"v2 the Pod and another Pod", "0::/..\n", "0::/../../q/x\n", false},
		{"v2 another Pod and our own", "0::/../../q\n", "0::/\n", false},
		{"v2 the slice and a sibling", "0::/../..\n", "0::/../x\n", true},
		{"v2 a name of dots", "0::/\n", "0::/...\n", true},
		{"v2 removed", "0::/a\n", "0::/a (deleted)\n", true},
		{"v1 same in another order", "2:cpu,cpuacct:/a\n1:name=systemd:/a\n", "7:name=systemd:/a\n5:cpu,cpuacct:/a\n", true},
		{"v1 below in one", "2:cpu:/a\n1:memory:/a\n", "2:cpu:/a\n1:memory:/a/b\n", true},
		{"v1 sibling in one", "2:cpu:/a\n1:memory:/a\n", "2:cpu:/a\n1:memory:/b\n", false},
		{"v1 below in one, above in one", "2:cpu:/a\n1:memory:/a\n", "2:cpu:/\n1:memory:/a/b\n", false},
		{"hybrid", "1:name=systemd:/a\n0::/a\n", "1:name=systemd:/a/x\n0::/a/x\n", true},
		{"hybrid, only systemd tells", "1:name=systemd:/a\n0::/\n", "1:name=systemd:/b\n0::/\n", false},
		{"a hierarchy is missing", "1:cpu:/a\n0::/a\n", "0::/a\n", false},
		{"no cgroups", "", "", true},
		{"no cgroups on one side", "", "0::/a\n", false},
	} {
		if got := cg(c.top).Holds(cg(c.path)); got != c.holds {
			t.Errorf("%s: %v", c.name, got)
		}
	}

	redis := Container{Cgroup: ":/", Name: "redis", Instance: "1a", Pod: "u"}
	nginx := Container{Cgroup: ":/", Name: "nginx", Instance: "2b", Pod: "u"}
	again := Container{Cgroup: ":/", Name: "redis", Instance: "3c", Pod: "u"}
	plain := Container{Cgroup: ":/"}
	liar := Container{Cgroup: ":/../x", Name: "redis", Instance: "1a", Pod: "u"}
	if !redis.Holds(redis) || redis.Holds(nginx) || redis.Holds(again) || !redis.Holds(plain) || redis.Holds(liar) {
		t.Error("the instance may only refuse, and must where the cgroup does not tell")
	}
}

// TestProcesses: a container's processes, those in cgroups that it has made, too.
func TestProcesses(t *testing.T) {
	unified := Proc.Unified()
	if unified == "" {
		t.Skip("missing a cgroup file system of version 2; mount one")
	}
	dir := filepath.Join(unified, "podnotify-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip("missing the right to make a cgroup; run as root: ", err)
	}
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{below, dir} {
			eventually(t, "the cgroup is empty", func() bool { return os.Remove(d) == nil })
		}
	})
	var want []int
	for _, d := range []string{dir, below} {
		c := start(t, "sit")
		if err := os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(c.pid)), 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, c.pid)
	}
	c, err := Proc.Cgroup(want[0])
	if err != nil {
		t.Fatal(err)
	}
	if pids, err := c.Processes(unified); err != nil || !slices.Equal(pids, want) {
		t.Errorf("%v, %v; want %v", pids, err, want)
	}
	for i := range cgroupsMost {
		d := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(d)
	}
	for name, c := range map[string]Container{
		"too many":     c,
		"out of sight": {Cgroup: ":/../" + filepath.Base(unified) + "/" + filepath.Base(dir) + "/below"}, // another place, were it not for its name
		"version 1":    {Cgroup: "cpu:/"},
		"the root":     {Cgroup: ":/"},
		"is no more":   {Cgroup: ":/podnotify-test-is-no-more"},
		"none":         {},
	} {
		if pids, err := c.Processes(unified); err == nil {
			t.Errorf("%s: %v", name, pids)
		}
	}
	if pids, err := c.Processes(""); err == nil {
		t.Errorf("not mounted: %v", pids)
	}
}

const mounts = `22 1 0:20 / /proc rw,nosuid - proc proc rw
612 600 254:1 /var/lib/kubelet/pods/0f3c/volumes/kubernetes.io~empty-dir/run /run/podnotify ro - ext4 /dev/vda1 rw
613 600 254:1 /var/lib/kubelet/pods/0f3c/etc-hosts /etc/hosts rw - ext4 /dev/vda1 rw
`

func TestContainerOfAFixture(t *testing.T) {
	f := fixture(t, map[string]string{
		"5/cgroup":    "0::/../cri-containerd-aa.scope\n",
		"5/mountinfo": mounts + "614 600 254:1 /var/lib/kubelet/pods/0f3c/containers/redis/1a2b /dev/termination-log rw - ext4 /dev/vda1 rw\n",
		"6/cgroup":    "0::/\n",
		"6/mountinfo": mounts + "614 600 254:9 /pods/0f3c/containers/redis/1a2b//deleted /my/log rw - ext4 /dev/vdb1 rw\n",
		"7/cgroup":    "0::/\n",
		"7/mountinfo": mounts + "short line\n",
		"8/cgroup":    "0::/\n",
		"8/mountinfo": "1 1 0:1 /x/pods/u/containers/other/9 /opt rw\n2 1 0:1 /pods/u/containers/redis/8 /dev/termination-log rw\n3 1 0:1 /pods/u/containers/late/7 /a rw\n",
		"9/cgroup":    "0::/\n",
		"10/stat":     line(10, "no cgroups", 'S', 1, 1),
	})
	for _, c := range []struct {
		pid  int
		want Container
	}{
		{5, Container{":/../cri-containerd-aa.scope", "redis", "1a2b", "0f3c"}},
		{6, Container{":/", "redis", "1a2b", "0f3c"}},
		{7, Container{Cgroup: ":/"}},
		{8, Container{":/", "redis", "8", "u"}},
		{9, Container{Cgroup: ":/"}},
		{10, Container{}},
	} {
		if got, err := f.Container(c.pid); err != nil || got != c.want {
			t.Errorf("Container(%d) = %+v, %v", c.pid, got, err)
		}
	}
	if c, err := f.Container(11); err == nil {
		t.Errorf("Container of nobody = %+v", c)
	}
}

func TestContainerOfAChild(t *testing.T) {
	us, err := Proc.Container(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	child, err := Proc.Container(start(t, "sit").pid)
	if err != nil {
		t.Fatal(err)
	}
	if us != child || !us.Holds(child) || us.Cgroup == "" {
		t.Errorf("we are in %+v, our child in %+v", us, child)
	}
}
