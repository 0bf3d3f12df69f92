package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Container tells which container a process is in, as far as one may see without
// any privilege: by its cgroups, which the kernel keeps and only root can change,
// and in Kubernetes by the file that kubelet mounts for termination messages.
type Container struct {
	// Cgroup holds the lines of /proc/PID/cgroup without the hierarchy numbers,
	// "controllers:path", sorted. Paths are as seen from our own cgroup namespace:
	// that of a sibling container reads "/../name".
	Cgroup string

	// Name is the container's name in the Pod, Instance the random number kubelet
	// gave to this start of it, Pod the UID. They come from the root field of a
	// mount in /proc/PID/mountinfo and are empty outside Kubernetes. A process
	// that may mount (in a user namespace of its own, say) can make them up.
	Name, Instance, Pod string
}

// Container reads which container process pid is in.
func (f FS) Container(pid int) (Container, error) {
	c, err := f.Cgroup(pid)
	if err != nil {
		return c, err
	}
	// A zombie has no mounts any more, and a security module may refuse them.
	// The cgroup decides; the name is extra.
	if b, err := f.read(pid, "mountinfo"); err == nil {
		c.Pod, c.Name, c.Instance = termination(string(b))
	}
	return c, nil
}

// Cgroup is Container without the names, for a tenth of the work.
func (f FS) Cgroup(pid int) (Container, error) {
	b, err := readAll(f.body(pid, "cgroup"), maxFile)
	if err != nil {
		// A kernel without cgroups has no such file, nor containers.
		if _, alive := f.Stat(pid); alive != nil || gone(err) != ErrGone {
			return Container{}, fmt.Errorf("cannot read cgroup of process %d: %w", pid, gone(err))
		}
	}
	return Container{Cgroup: normal(string(b))}, nil
}

// Holds reports whether other is in the container: in the same cgroup or one
// below it, in every hierarchy (there is one in v2, one a controller in v1, both
// kinds in hybrid set-ups). Where cgroups do not tell containers apart, the
// instance may; what a process could make up only ever refuses.
func (c Container) Holds(other Container) bool {
	if c.Instance != "" && other.Instance != "" &&
		(c.Instance != other.Instance || c.Name != other.Name || c.Pod != other.Pod) {
		return false
	}
	if c.Cgroup == other.Cgroup {
		return true
	}
	if c.Cgroup == "" {
		return false
	}
	theirs := strings.Split(other.Cgroup, "\n")
	for line := range strings.SplitSeq(c.Cgroup, "\n") {
		hierarchy, path, _ := strings.Cut(line, ":/")
		i := slices.IndexFunc(theirs, func(s string) bool { return strings.HasPrefix(s, hierarchy+":/") })
		if i < 0 || !below(theirs[i][len(hierarchy)+2:], path) {
			return false
		}
	}
	return true
}

// Unified is where the unified hierarchy of cgroups (version 2) is mounted whole, or as
// much of it as our cgroup namespace shows. It is empty where it is not.
func (f FS) Unified() string {
	b, err := f.read(os.Getpid(), "mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		// 36 35 0:30 / /sys/fs/cgroup options ... - cgroup2 source options; proc_pid_mountinfo(5)
		mount, super, _ := strings.Cut(line, " - ")
		if at := strings.Fields(mount); len(at) > 4 && at[3] == "/" && strings.HasPrefix(super, "cgroup2 ") {
			return at[4]
		}
	}
	return ""
}

// cgroupsMost bounds in how many cgroups below a container's processes are looked for:
// a container may have the right to make them.
const cgroupsMost = 256

var errCgroup = errors.New("the container's cgroups cannot be read")

// Processes lists the processes of the container, and maybe others, by its cgroup in the
// unified hierarchy, which is mounted at unified, see [FS.Unified]. Where that does not
// tell, or there are too many cgroups below, it is an error: then look at all processes.
func (c Container) Processes(unified string) ([]int, error) {
	lines := strings.Split(c.Cgroup, "\n")
	i := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, ":/") })
	if unified == "" || i < 0 {
		return nil, errCgroup
	}
	path := lines[i][len(":/"):]
	if up, down := climb(path); up > 0 || down == "" {
		return nil, errCgroup // outside of what is mounted, or all of it
	}
	var pids []int
	cgroups := 0
	err := filepath.WalkDir(filepath.Join(unified, path), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		if cgroups++; cgroups > cgroupsMost {
			return errCgroup
		}
		b, err := readAll(filepath.Join(path, "cgroup.procs"), maxFile)
		for line := range strings.Lines(string(b)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 { // 0: not visible from here
				pids = append(pids, pid)
			}
		}
		return err
	})
	return pids, err
}

// below reports whether the cgroup at path is the one at top or below it. Both
// are relative to the root of our cgroup namespace and lead up from it by "..",
// as the kernel writes them, before they lead down.
func below(path, top string) bool {
	up, down := climb(path)
	topUp, topDown := climb(top)
	switch {
	case up < topUp:
		// path leaves our own line of ancestors below where top does, so only an
		// ancestor of ours has it beneath.
		return topDown == ""
	case up > topUp:
		return false
	}
	return topDown == "" || down == topDown || strings.HasPrefix(down, topDown+"/")
}

// climb splits a path into the number of leading ".." and the rest.
func climb(path string) (up int, down string) {
	for path == ".." || strings.HasPrefix(path, "../") {
		up++
		path = strings.TrimPrefix(path[2:], "/")
	}
	return up, path
}

// normal brings /proc/PID/cgroup into the form of [Container.Cgroup]. Lines read
// "number:controllers:/path"; the numbers depend on the order of mounting.
func normal(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if _, rest, ok := strings.Cut(line, ":"); ok {
			// The kernel marks a removed cgroup, in which only zombies can be.
			lines = append(lines, strings.TrimSuffix(rest, " (deleted)"))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// termination finds kubelet's mount of the termination log in mountinfo. What is
// fixed is where kubelet keeps the file, so its root field is matched:
// ".../pods/UID/containers/NAME/INSTANCE". The mount point is the Pod's choice;
// the usual one wins if several match.
func termination(mountinfo string) (pod, name, instance string) {
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 /root /mountpoint ...; proc_pid_mountinfo(5)
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		root := strings.TrimSuffix(fields[3], "//deleted") // the kernel marks a removed file
		dir := strings.Split(root, "/")
		n := len(dir)
		if n < 6 || dir[n-5] != "pods" || dir[n-3] != "containers" {
			continue
		}
		usual := fields[4] == "/dev/termination-log"
		if instance == "" || usual {
			pod, name, instance = dir[n-4], dir[n-2], dir[n-1]
		}
		if usual {
			break
		}
	}
	return pod, name, instance
}
