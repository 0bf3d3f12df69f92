// Package charts tests the charts and the manifests of the examples: everything
// is rendered by Helm's own library, compared with what it was, and held against
// the schemas of Kubernetes and the rules of the probes. It needs no cluster and
// no network, but it links much of Kubernetes: it is a module of its own, so that
// podnotify's stays small.
package charts

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing them")

// The root of the project, and the two charts in it.
const (
	root    = "../.."
	app     = root + "/charts/podnotify"
	library = root + "/charts/podnotify/charts/podnotify-lib"
)

// kubernetes is the version that the charts are rendered for, and whose schemas
// they must match.
const kubernetes = "v1.34.4"

// rendering is one set of values, or one file of manifests, and what came of it.
type rendering struct {
	name    string
	version string // of Kubernetes
	text    string
	notes   string
	objects []*unstructured.Unstructured
}

// values are all files of values in the project: those of the chart's ci, and
// those of the daemons among the examples.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range glob(t, app+"/ci/*-values.yaml") {
		files[strings.TrimSuffix(filepath.Base(f), "-values.yaml")] = f
	}
	for _, f := range glob(t, root+"/examples/daemons/*/*values.yaml") {
		name := filepath.Base(filepath.Dir(f))
		if s := strings.TrimSuffix(filepath.Base(f), "values.yaml"); s != "" {
			name += "-" + strings.TrimSuffix(s, "-")
		}
		files["example-"+name] = f
	}
	return files
}

// renderings are the outcome of every file of values.
func renderings(t *testing.T) []rendering {
	t.Helper()
	var out []rendering
	for name, file := range valuesFiles(t) {
		r, err := render(t, app, name, read(t, file))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, r)
	}
	r, err := ownChart(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, r)
}

// ownChart is the example of a chart that uses the library, as it is after helm
// dependency build.
func ownChart(t *testing.T, values map[string]any) (rendering, error) {
	t.Helper()
	c, err := loader.LoadDir(root + "/examples/library")
	if err != nil {
		t.Fatal(err)
	}
	lib, err := loader.LoadDir(library)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDependencies(lib)
	return renderChart(c, "library", values)
}

// render does what helm template does, tests and notes included. A name that
// holds a version of Kubernetes, as in ci/pod-respawn-1.36, is rendered for it.
func render(t *testing.T, dir, name string, values map[string]any) (rendering, error) {
	t.Helper()
	c, err := loader.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return renderChart(c, name, values)
}

// renderAs is render under another name of the release.
func renderAs(t *testing.T, release string, values map[string]any) (rendering, error) {
	t.Helper()
	c, err := loader.LoadDir(app)
	if err != nil {
		t.Fatal(err)
	}
	return renderRelease(c, release, release, values)
}

func renderChart(c *chart.Chart, name string, values map[string]any) (rendering, error) {
	return renderRelease(c, "demo", name, values)
}

func renderRelease(c *chart.Chart, release, name string, values map[string]any) (rendering, error) {
	version := versionOf(name)
	install := action.NewInstall(new(action.Configuration))
	install.ClientOnly, install.DryRun, install.Replace = true, true, true
	install.ReleaseName, install.Namespace = release, "default"
	v, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		return rendering{}, err
	}
	install.KubeVersion = v
	rel, err := install.Run(c, values)
	if err != nil {
		return rendering{}, err
	}
	text := manifests(rel)
	objects, err := parse(text)
	return rendering{name, version, text, rel.Info.Notes, objects}, err
}

func versionOf(name string) string {
	if _, v, is := strings.Cut(name, "-1."); is {
		return "v1." + v + ".0"
	}
	return kubernetes
}

// manifests are all objects of a release as text, hooks at the end.
func manifests(rel *release.Release) string {
	b := new(strings.Builder)
	b.WriteString(strings.TrimSpace(rel.Manifest) + "\n")
	for _, h := range rel.Hooks {
		fmt.Fprintf(b, "---\n# Source: %s\n%s\n", h.Path, strings.TrimSpace(h.Manifest))
	}
	return b.String()
}

// parse reads objects, one a document.
func parse(text string) (out []*unstructured.Unstructured, err error) {
	for i, doc := range strings.Split("\n"+text, "\n---") {
		var o map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
		if len(o) > 0 {
			out = append(out, &unstructured.Unstructured{Object: o})
		}
	}
	return out, nil
}

func TestGolden(t *testing.T) {
	want := map[string]bool{}
	for _, r := range renderings(t) {
		file := filepath.Join("testdata", "golden", r.name+".yaml")
		want[file] = true
		text := r.text + "---\n# NOTES.txt\n" + comment(r.notes)
		golden(t, file, text)
	}
	for _, f := range glob(t, "testdata/golden/*") {
		other := strings.HasPrefix(filepath.Base(f), "injection-") || strings.HasPrefix(filepath.Base(f), "kustomize-")
		if !want[f] && !other {
			t.Errorf("%s: nothing is rendered to it", f)
		}
	}
}

func comment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		b.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	return b.String()
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%v; go test ./... -update in test/charts", err)
		return
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), go test ./... -update in test/charts:\n%s", file, d)
	}
}

func read(t *testing.T, file string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := yaml.UnmarshalStrict(b, &v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}

// readAll reads a file of manifests.
func readAll(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parse(string(b))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return objects
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// into converts an object to one of Kubernetes' types.
func into[T any](t *testing.T, o map[string]any) *T {
	t.Helper()
	v := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o, v, true); err != nil {
		t.Fatal(err)
	}
	return v
}
