package charts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// TestSchemas holds every object against the OpenAPI documents of the oldest
// Kubernetes that the end-to-end tests run, in which unknown fields are wrong,
// and against the types of the newest.
func TestSchemas(t *testing.T) {
	for _, r := range everything(t) {
		for _, o := range r.objects {
			at := r.name + ": " + o.GetKind() + " " + o.GetName()
			if o.GroupVersionKind().Group == "monitoring.coreos.com" {
				continue // of the Prometheus operator, which has no module of schemas
			}
			if err := decodes(o); err != nil {
				t.Errorf("%s: %v", at, err)
			}
			if r.version != kubernetes {
				continue
			}
			s := kubernetesSchema(t, o.GroupVersionKind())
			if err := s.Validate(plain(t, o.Object)); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	}
}

// TestSchemasFail: what the test above would not let pass.
func TestSchemasFail(t *testing.T) {
	for name, text := range map[string]string{
		"misspelt":   `{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: x, image: x, livenesProbe: {}}]}}`,
		"wrong type": `{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: x, image: x, command: x}]}}`,
		"missing":    `{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{image: x}]}}`,
	} {
		objects, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := kubernetesSchema(t, objects[0].GroupVersionKind()).Validate(plain(t, objects[0].Object)); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

// everything is all that the project has for kubectl.
func everything(t *testing.T) []rendering {
	t.Helper()
	return slices.Concat(renderings(t), manifestFiles(t), []rendering{overlay(t)})
}

// manifestFiles are the files of the examples that kubectl takes as they are.
func manifestFiles(t *testing.T) (out []rendering) {
	t.Helper()
	for _, f := range glob(t, root+"/examples/kubernetes/*.yaml") {
		out = append(out, rendering{name: filepath.Base(f), version: kubernetes, objects: readAll(t, f)})
	}
	return out
}

// TestNodeExample: what the example of podnotify-node has for kubectl is what Kubernetes
// knows. Pod Security has no say in it: the agent of a host is outside of it.
func TestNodeExample(t *testing.T) {
	files := glob(t, root+"/examples/node/*.yaml")
	if len(files) == 0 {
		t.Fatal("there is none")
	}
	for _, f := range files {
		for _, o := range readAll(t, f) {
			if err := decodes(o); err != nil {
				t.Errorf("%s: %v", f, err)
			}
			if err := kubernetesSchema(t, o.GroupVersionKind()).Validate(plain(t, o.Object)); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

// decodes decodes strictly into the types of client-go.
func decodes(o *unstructured.Unstructured) error {
	b, err := yaml.Marshal(o.Object)
	if err != nil {
		return err
	}
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	_, _, err = strict.Decode(b, nil, nil)
	return err
}

// plain is a value as encoding/json would have read it: what the validator knows.
func plain(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	p, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// kubernetesDir is where the module of Kubernetes lies; it is downloaded once,
// and nothing of it is compiled.
var kubernetesDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", "k8s.io/kubernetes@"+kubernetes).Output()
	if err != nil {
		return "", fmt.Errorf("cannot download the schemas of Kubernetes: %w\n%s", err, out)
	}
	var m struct{ Dir string }
	return m.Dir, json.Unmarshal(out, &m)
})

var (
	schemas  sync.Map // of documents by group and version
	compiled sync.Map // schemas by kind
)

// kubernetesSchema is the schema of a kind, closed: fields that it does not name
// are wrong.
func kubernetesSchema(t *testing.T, kind schema.GroupVersionKind) *jsonschema.Schema {
	t.Helper()
	if s, is := compiled.Load(kind); is {
		return s.(*jsonschema.Schema)
	}
	dir, err := kubernetesDir()
	if err != nil {
		t.Fatal(err)
	}
	file := "apis__" + kind.Group + "__" + kind.Version
	if kind.Group == "" {
		file = "api__" + kind.Version
	}
	load, _ := schemas.LoadOrStore(file, sync.OnceValues(func() (*jsonschema.Compiler, error) {
		b, err := os.ReadFile(filepath.Join(dir, "api/openapi-spec/v3", file+"_openapi.json"))
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
		if err != nil {
			return nil, err
		}
		closeObjects(doc)
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft7)
		return c, c.AddResource("file:///"+file, doc)
	}))
	c, err := load.(func() (*jsonschema.Compiler, error))()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(dir, "api/openapi-spec/v3", file+"_openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("file:///" + file + "#/components/schemas/" + definition(t, doc, kind))
	if err != nil {
		t.Fatal(err)
	}
	compiled.Store(kind, s)
	return s
}

// definition is the name of a kind's schema in its document.
func definition(t *testing.T, doc []byte, kind schema.GroupVersionKind) string {
	t.Helper()
	var d struct {
		Components struct {
			Schemas map[string]struct {
				Kinds []struct{ Group, Version, Kind string } `json:"x-kubernetes-group-version-kind"`
			}
		}
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		for _, k := range d.Components.Schemas[name].Kinds {
			if (schema.GroupVersionKind{Group: k.Group, Version: k.Version, Kind: k.Kind}) == kind {
				return name
			}
		}
	}
	t.Fatalf("Kubernetes %s has no %s", kubernetes, kind)
	return ""
}

// closeObjects turns an OpenAPI document of Kubernetes into strict JSON Schema.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, is := v["properties"].(map[string]any); is && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, v := range v {
			closeObjects(v)
		}
	case []any:
		for _, v := range v {
			closeObjects(v)
		}
	}
}
