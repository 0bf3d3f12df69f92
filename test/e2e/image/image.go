// Package image makes container images out of programs that are installed here:
// a Debian daemon, unchanged, with the libraries it is linked to and nothing
// else. No registry and no container engine takes part.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Image is what "docker save" would write. The zero value is an empty one.
type Image struct {
	Name       string // with its tag
	User       string // "uid:gid"
	Entrypoint []string
	Cmd        []string
	Env        []string
	WorkingDir string
	Labels     map[string]string

	files map[string]file
	err   error
}

type file struct {
	mode    int64
	content []byte
	dir     bool
}

// File adds a file, and the directories it is in.
func (i *Image) File(path string, mode int64, content []byte) {
	if i.files == nil {
		i.files = map[string]file{}
	}
	i.files[path] = file{mode: mode, content: content}
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if _, ok := i.files[dir]; !ok {
			i.files[dir] = file{mode: 0o755, dir: true}
		}
	}
}

// Dir adds a directory with a mode.
func (i *Image) Dir(path string, mode int64) {
	i.File(path, mode, nil)
	i.files[path] = file{mode: mode, dir: true}
}

// Copy adds a file of this machine.
func (i *Image) Copy(from, to string, mode int64) {
	content, err := os.ReadFile(from)
	if err != nil && i.err == nil {
		i.err = err
	}
	i.File(to, mode, content)
}

// Program adds an installed program, found as a shell finds it, at its own path,
// and the libraries that the loader would load with it.
func (i *Image) Program(name string) {
	path, err := exec.LookPath(name)
	if err != nil {
		if i.err == nil {
			i.err = err
		}
		return
	}
	i.Copy(path, path, 0o755)
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		if bytes.Contains(out, []byte("not a dynamic executable")) {
			return
		}
		i.err = fmt.Errorf("cannot tell the libraries of %s: %w: %s", path, err, out)
		return
	}
	for line := range strings.Lines(string(out)) {
		// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)" or "/lib64/ld-linux-x86-64.so.2 (0x...)"
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				i.Copy(word, word, 0o755)
			}
		}
	}
}

// Write writes the archive.
func (i *Image) Write(path string) error {
	if i.err != nil {
		return fmt.Errorf("cannot make image %s: %w", i.Name, i.err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, path := range slices.Sorted(maps.Keys(i.files)) {
		f := i.files[path]
		h := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if f.dir {
			h.Name, h.Typeflag = h.Name+"/", tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(f.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"config":       map[string]any{"User": i.User, "Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "Env": i.Env, "WorkingDir": i.WorkingDir, "Labels": i.Labels},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{i.Name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w = tar.NewWriter(out)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer.Bytes()}} {
		if err := w.WriteHeader(&tar.Header{Name: part.name, Mode: 0o644, Size: int64(len(part.content)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(part.content); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}

// Build compiles a Go package of podnotify's as its images have it: static.
func Build(out, dir, pkg string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", pkg, err, b)
	}
	return nil
}
