package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary plays two more parts, when this variable says so.
const (
	roleVariable = "PODNOTIFY_TEST_MACHINE"
	roleKeeper   = "keeper"
	roleFirst    = "first"
)

// prefix names scratch directories and cgroups, so that those of a dead machine
// can be found.
const prefix = "pn-e2e-"

// Main returns at once, unless this process was started to be part of a
// machine: then it never does.
func Main() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	var err error
	switch role {
	case roleKeeper:
		err = keep(os.Args[1])
	case roleFirst:
		err = first(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func again(role, dir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, dir)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	return cmd, nil
}

// keep starts the first process of a machine, and cleans up when the test ends.
func keep(dir string) error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	cmd, err := again(roleFirst, dir)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("cannot make namespaces: %w", err), remove(dir))
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err == nil && line == "ok\n" {
		fmt.Println("ok", cmd.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	}
	in.Close()
	_ = cmd.Process.Kill() // with it the kernel ends all that is in the machine
	_ = cmd.Wait()
	return remove(dir)
}

// first is process 1 of a machine.
func first(dir string) error {
	if err := mounts(dir); err != nil {
		return err
	}
	fmt.Println("ok")
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
					break
				}
			}
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the keeper ends
	return nil
}

// mounts makes the machine's own view of the files.
func mounts(dir string) error {
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("cannot mount %s: %w", target, err)
		}
		return nil
	}
	logs := filepath.Join(dir, "log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	for _, m := range []struct{ source, target, kind, data string }{
		{"proc", "/proc", "proc", ""},
		{"run", "/run", "tmpfs", "mode=755"}, // shims, runc and CNI leave their state there
		{logs, "/var/log", "", ""},
	} {
		flags := uintptr(0)
		if m.kind == "" {
			flags = unix.MS_BIND
		}
		if err == nil {
			err = mount(m.source, m.target, m.kind, flags, m.data)
		}
	}
	if err != nil {
		return err
	}
	// A kubelet sets these, for this machine and the one around it: there is one
	// kernel. It reads first and leaves alone what is right already.
	for name, value := range map[string]string{
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join("/run", "sysctl-"+strings.ReplaceAll(name, "/", "-"))
		if _, err := os.Stat(filepath.Join("/proc/sys", name)); err != nil {
			continue // not in this kernel
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(file, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// scratch makes a locked directory: one without a lock is that of a dead
// machine. The lock lasts as long as any process has the file open.
func scratch() (dir string, locked *os.File, err error) {
	dir, err = os.MkdirTemp("", prefix)
	if err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", nil, err
	}
	locked, err = lock(dir)
	return dir, locked, err
}

func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	return f, nil
}

// sweep removes what machines left whose keeper was killed.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range dirs {
		if f, err := lock(dir); err == nil {
			_ = remove(dir)
			f.Close()
		}
	}
}

// remove removes the directory and the cgroups of a machine in which nothing
// runs any more.
func remove(dir string) error {
	var err error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		roots, _ := filepath.Glob(pattern + filepath.Base(dir))
		for _, root := range roots {
			err = errors.Join(err, removeCgroup(root))
		}
	}
	return errors.Join(err, os.RemoveAll(dir))
}

func removeCgroup(root string) error {
	var groups []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return nil
	})
	for _, group := range slices.Backward(groups) {
		// The kernel empties a cgroup a moment after its last process ended.
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			e := unix.Rmdir(group)
			if e == nil || e == unix.ENOENT {
				break
			}
			if time.Now().After(end) {
				err = errors.Join(err, fmt.Errorf("cannot remove %s: %w", group, e))
				break
			}
		}
	}
	return err
}
