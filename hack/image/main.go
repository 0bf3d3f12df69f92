// Image builds container images from static binaries, without a registry, a
// container engine or root: the same bytes from the same binaries, whoever
// builds them, where and when.
//
//	image -bin DIR -out DIR [-version V] [-revision R] [-time SECONDS] NAME
//
// DIR/ARCH/ of -bin has the binaries. It writes, for the image NAME:
//
//	NAME-image.tar        an OCI layout with an index of all architectures
//	NAME-image-ARCH.tar   a docker archive, for docker load and ctr images import
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// image is what an image is beside its architecture. Where there is a
// Dockerfile, that says the same.
type image struct {
	repository  string
	title       string
	description string
	programs    []string // in -bin
	entrypoint  []string
	cmd         []string
	env         []string
	ports       []string
	user        string
	// dirs is where the program writes. Whoever runs it may, as in /tmp: a new
	// docker volume takes over the mode.
	dirs []string
}

var images = map[string]image{
	"podnotify": {
		repository:  "podnotify/podnotify",
		title:       "podnotify",
		description: "turns what a daemon tells its init system into answers for probes",
		programs:    []string{"podnotify", "podnotify-healthcheck"},
		entrypoint:  []string{"/podnotify"},
		cmd:         []string{"sidecar"},
		env:         []string{"PODNOTIFY_RUN_DIR=/run/podnotify"},
		ports:       []string{"19119/tcp"},
		user:        "65532:65532",
		dirs:        []string{"/run/podnotify"},
	},
	"podnotify-node": {
		repository:  "podnotify/podnotify-node",
		title:       "podnotify-node",
		description: "answers probes for all daemons of a host",
		programs:    []string{"podnotify-node"},
		entrypoint:  []string{"/podnotify-node"},
		ports:       []string{"19119/tcp"},
		user:        "0:0", // containerd's socket is root's, and so are daemons
	},
}

var architectures = []string{"amd64", "arm64"}

const (
	source   = "https://github.com/podnotify/podnotify"
	licenses = "Apache-2.0"
)

// release is what one build has of its own.
type release struct {
	version  string
	revision string
	time     time.Time
}

// legal is the files that have to go with the programs.
type legal struct{ license, notices string }

func main() {
	var r release
	bin := flag.String("bin", "", "`directory` of the binaries, one folder an architecture")
	license := flag.String("license", "LICENSE", "`file` that goes into the image as /LICENSE")
	notices := flag.String("notices", "THIRD_PARTY", "`file` with the licences of what is linked, which goes into the image as /THIRD_PARTY")
	out := flag.String("out", "", "`directory` to write to")
	flag.StringVar(&r.version, "version", "dev", "version, and the tag")
	flag.StringVar(&r.revision, "revision", "unknown", "commit of the source")
	seconds := flag.Int64("time", 0, "`seconds` since 1970 that everything in the image is dated")
	flag.Parse()
	r.time = time.Unix(*seconds, 0).UTC()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := build(flag.Arg(0), *bin, legal{*license, *notices}, *out, r); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// build writes the files of one image.
func build(what, bin string, l legal, out string, r release) error {
	im, ok := images[what]
	if !ok {
		return fmt.Errorf("cannot build %q: there is no such image", what)
	}
	tag, err := name.NewTag(im.repository + ":" + tagOf(r.version))
	if err != nil {
		return fmt.Errorf("cannot name the image: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("cannot make the directory of the images: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures {
		one, err := im.build(filepath.Join(bin, arch), l, arch, r)
		if err != nil {
			return fmt.Errorf("cannot build the image of %s for %s: %w", what, arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: one, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
		file := filepath.Join(out, what+"-image-"+arch+".tar")
		if err := tarball.WriteToFile(file, tag, one); err != nil {
			return fmt.Errorf("cannot write %s: %w", file, err)
		}
	}
	index = mutate.Annotations(index, im.labels(r)).(v1.ImageIndex)
	file := filepath.Join(out, what+"-image.tar")
	if err := writeLayout(file, index, im.repository, r); err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return nil
}

// tagOf is a version as a tag may be written: without the v of a release, and
// without the + of build metadata.
func tagOf(version string) string {
	if rest, ok := strings.CutPrefix(version, "v"); ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		version = rest
	}
	return strings.ReplaceAll(version, "+", "_")
}

func (im image) labels(r release) map[string]string {
	const oci = "org.opencontainers.image."
	return map[string]string{
		oci + "title":       im.title,
		oci + "description": im.description,
		oci + "source":      source,
		oci + "licenses":    licenses,
		oci + "version":     r.version,
		oci + "revision":    r.revision,
		oci + "created":     r.time.Format(time.RFC3339),
	}
}

// build makes the image for one architecture, of the binaries in bin.
func (im image) build(bin string, l legal, arch string, r release) (v1.Image, error) {
	files, err := im.layer(bin, l, r)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	one := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	one, err = mutate.Append(one, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		History: v1.History{Created: v1.Time{Time: r.time}, CreatedBy: "make image"},
	})
	if err != nil {
		return nil, err
	}
	file, err := one.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", arch, v1.Time{Time: r.time}
	file.Config = v1.Config{
		User: im.user, Env: im.env, Entrypoint: im.entrypoint, Cmd: im.cmd, Labels: im.labels(r), ExposedPorts: map[string]struct{}{},
	}
	for _, p := range im.ports {
		file.Config.ExposedPorts[p] = struct{}{}
	}
	return mutate.ConfigFile(one, file)
}

// layer is the files of the image, as a tar.
func (im image) layer(bin string, l legal, r release) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, d := range im.dirs {
		for i := 1; i < len(d); i++ { // those above, which are made again if two share them
			if d[i] == '/' {
				if err := addDir(w, d[1:i], 0o755, r.time); err != nil {
					return nil, err
				}
			}
		}
		if err := addDir(w, d[1:], 0o1777, r.time); err != nil {
			return nil, err
		}
	}
	if err := addFile(w, "LICENSE", l.license, 0o644, r.time); err != nil {
		return nil, err
	}
	if err := addFile(w, "THIRD_PARTY", l.notices, 0o644, r.time); err != nil {
		return nil, err
	}
	for _, p := range im.programs {
		if err := addFile(w, p, filepath.Join(bin, p), 0o755, r.time); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func addDir(w *tar.Writer, name string, mode int64, at time.Time) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: at, Format: tar.FormatPAX})
}

func addFile(w *tar.Writer, name, from string, mode int64, at time.Time) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: mode, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// writeLayout writes index as an OCI layout in a tar, named so that ctr images
// import and others find the name of the image.
func writeLayout(file string, index v1.ImageIndex, repository string, r release) error {
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	at, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := at.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          "docker.io/" + repository + ":" + tagOf(r.version),
		"org.opencontainers.image.ref.name": tagOf(r.version),
	})); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	// In the order of their names: filepath.WalkDir sorts.
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return addDir(w, rel, 0o755, r.time)
		}
		return addFile(w, rel, p, 0o644, r.time)
	})
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = f.Close()
	}
	return err
}
