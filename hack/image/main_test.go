package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var made = release{version: "v1.2.3+x", revision: "0123abcd", time: time.Unix(1_700_000_000, 0).UTC()}

// buildAll builds an image of binaries that say their name, in a directory of its
// own, and returns what was written.
func buildAll(t *testing.T, what string, mode os.FileMode) (files map[string][]byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, arch := range architectures {
		if err := os.MkdirAll(filepath.Join(dir, "bin", arch), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, p := range images[what].programs {
			if err := os.WriteFile(filepath.Join(dir, "bin", arch, p), []byte(p+" for "+arch), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "licence"), []byte("as you like it"), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "third"), []byte("as they like it"), mode); err != nil {
		t.Fatal(err)
	}
	if err := build(what, filepath.Join(dir, "bin"), legal{filepath.Join(dir, "licence"), filepath.Join(dir, "third")}, filepath.Join(dir, "out"), made); err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	for _, suffix := range []string{"-image.tar", "-image-amd64.tar", "-image-arm64.tar"} {
		name := what + suffix
		b, err := os.ReadFile(filepath.Join(dir, "out", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = b
	}
	return files, dir
}

// TestReproducible: neither the directory, nor the time, nor the modes of the
// files that a umask left change a byte.
func TestReproducible(t *testing.T) {
	for what := range images {
		one, _ := buildAll(t, what, 0o755)
		two, _ := buildAll(t, what, 0o700)
		for name := range one {
			if !bytes.Equal(one[name], two[name]) {
				t.Errorf("%s: two builds differ", name)
			}
		}
	}
}

// content lists a tar as "mode uid:gid name text".
func content(t *testing.T, r io.Reader) (out []string) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(made.time) {
			t.Errorf("%s is dated %v", h.Name, h.ModTime)
		}
		out = append(out, strings.TrimSpace(fmt.Sprintf("%04o %d:%d %s %s", h.Mode, h.Uid, h.Gid, h.Name, text)))
	}
}

func checkImage(t *testing.T, im v1.Image, arch string) {
	t.Helper()
	if err := validate.Image(im); err != nil {
		t.Fatal(err)
	}
	c, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.OS != "linux" || c.Architecture != arch || !c.Created.Time.Equal(made.time) {
		t.Errorf("%s %s %v", c.OS, c.Architecture, c.Created)
	}
	if got := c.Config; got.User != "65532:65532" || got.Healthcheck != nil || got.WorkingDir != "" ||
		!slices.Equal(got.Entrypoint, []string{"/podnotify"}) || !slices.Equal(got.Cmd, []string{"sidecar"}) ||
		!slices.Equal(got.Env, []string{"PODNOTIFY_RUN_DIR=/run/podnotify"}) || len(got.ExposedPorts) != 1 {
		t.Errorf("%+v", got)
	}
	for label, want := range map[string]string{
		"title": "podnotify", "version": "v1.2.3+x", "revision": "0123abcd", "licenses": "Apache-2.0",
		"source": "https://github.com/podnotify/podnotify", "created": "2023-11-14T22:13:20Z",
	} {
		if got := c.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s: %q, want %q", label, got, want)
		}
	}
	layers, err := im.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := []string{
		"0755 0:0 run/",
		"1777 0:0 run/podnotify/",
		"0644 0:0 LICENSE as you like it",
		"0644 0:0 THIRD_PARTY as they like it",
		"0755 0:0 podnotify podnotify for " + arch,
		"0755 0:0 podnotify-healthcheck podnotify-healthcheck for " + arch,
	}
	if got := content(t, r); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestLayout reads the OCI layout as others do.
func TestLayout(t *testing.T) {
	files, _ := buildAll(t, "podnotify", 0o755)
	dir := t.TempDir()
	for tr := tar.NewReader(bytes.NewReader(files["podnotify-image.tar"])); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(to, 0o755)
		} else if b, e := io.ReadAll(tr); e != nil {
			err = e
		} else {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	top, err := index.IndexManifest()
	if err != nil || len(top.Manifests) != 1 {
		t.Fatal(top, err)
	}
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/podnotify/podnotify:1.2.3_x" {
		t.Errorf("it is named %q", got)
	}
	inner, err := index.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	all, err := inner.IndexManifest()
	if err != nil || len(all.Manifests) != len(architectures) {
		t.Fatal(all, err)
	}
	for i, m := range all.Manifests {
		if m.Platform.OS != "linux" || m.Platform.Architecture != architectures[i] {
			t.Errorf("platform %+v", m.Platform)
		}
		im, err := inner.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, im, architectures[i])
	}
}

func TestDockerArchive(t *testing.T) {
	_, dir := buildAll(t, "podnotify", 0o755)
	for _, arch := range architectures {
		tag, err := name.NewTag("podnotify/podnotify:1.2.3_x")
		if err != nil {
			t.Fatal(err)
		}
		im, err := tarball.ImageFromPath(filepath.Join(dir, "out", "podnotify-image-"+arch+".tar"), &tag)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, im, arch)
	}
}

// TestNode: the agent of a host is root there, and brings nothing but itself.
func TestNode(t *testing.T) {
	_, dir := buildAll(t, "podnotify-node", 0o755)
	im, err := tarball.ImageFromPath(filepath.Join(dir, "out", "podnotify-node-image-amd64.tar"), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Config; got.User != "0:0" || !slices.Equal(got.Entrypoint, []string{"/podnotify-node"}) || got.Cmd != nil || got.Env != nil {
		t.Errorf("%+v", got)
	}
	layers, err := im.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := content(t, r); !slices.Equal(got, []string{"0644 0:0 LICENSE as you like it", "0644 0:0 THIRD_PARTY as they like it", "0755 0:0 podnotify-node podnotify-node for amd64"}) {
		t.Errorf("%q", got)
	}
}

func TestMistakes(t *testing.T) {
	_, dir := buildAll(t, "podnotify", 0o755)
	for what, want := range map[string]string{"podnot": "no such image", "podnotify": "no such file"} {
		if err := build(what, dir, legal{filepath.Join(dir, "licence"), filepath.Join(dir, "third")}, filepath.Join(dir, "out"), made); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
}
