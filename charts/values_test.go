// Package charts holds nothing but this test: values.schema.json and the table
// of values in README.md, of both charts, say what values.yaml says.
//
//	go test ./charts -update
package charts

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the files instead of comparing them")

const library = "podnotify/charts/podnotify-lib"

func TestSchema(t *testing.T) {
	for _, chart := range []string{"podnotify", library} {
		schema, err := newSchema(values(t, chart), definitions(t))
		if err != nil {
			t.Fatalf("%s: %v", chart, err)
		}
		if chart == "podnotify" { // closed by the schema of its own
			schema["properties"].(object)["podnotify"] = object{"type": "object", "description": "the values of podnotify-lib"}
		} else { // what a parent chart's global values are to it
			schema["properties"].(object)["global"] = object{"type": "object"}
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(schema); err != nil {
			t.Fatal(err)
		}
		current(t, filepath.Join(chart, "values.schema.json"), b.Bytes())
	}
}

func TestReadme(t *testing.T) {
	ours := rows(t, "", values(t, library))
	readme(t, library, ours)
	app := rows(t, "", values(t, "podnotify"))
	for _, r := range ours {
		r.key = "podnotify." + r.key
		app = append(app, r)
	}
	readme(t, "podnotify", app)
}

// TestClosed looks at the schemas as they are on disk: a misspelt key anywhere
// must fail.
func TestClosed(t *testing.T) {
	for _, chart := range []string{"podnotify", library} {
		b, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		var schema object
		if err := json.Unmarshal(b, &schema); err != nil {
			t.Fatal(err)
		}
		delete(schema, "definitions")                              // of Kubernetes: closed at their first level
		delete(schema["properties"].(map[string]any), "podnotify") // closed by the library's
		delete(schema["properties"].(map[string]any), "global")    // a parent chart's own
		var look func(at string, s map[string]any)
		look = func(at string, s map[string]any) {
			properties, is := s["properties"].(map[string]any)
			if s["type"] == "object" && s["additionalProperties"] != false {
				t.Errorf("%s: %s is open", chart, at)
			}
			if is {
				for k, v := range properties {
					look(at+"."+k, v.(map[string]any))
				}
			}
			if items, is := s["items"].(map[string]any); is {
				look(at+"[]", items)
			}
		}
		look("", schema)
	}
}

// TestVersions: one version in every place that names it.
func TestVersions(t *testing.T) {
	type chart struct {
		Version      string
		AppVersion   string `yaml:"appVersion"`
		Dependencies []struct{ Name, Version string }
		Annotations  map[string]string
	}
	read := func(dir string) (c chart) {
		unmarshal(t, filepath.Join(dir, "Chart.yaml"), &c)
		return c
	}
	app, lib := read("podnotify"), read(library)
	var image struct {
		Image struct{ Repository, Tag string }
	}
	unmarshal(t, filepath.Join(library, "values.yaml"), &image)
	if app.AppVersion != lib.AppVersion || image.Image.Tag != app.AppVersion {
		t.Errorf("appVersion is %s and %s, image.tag %s", app.AppVersion, lib.AppVersion, image.Image.Tag)
	}
	if len(app.Dependencies) != 1 || app.Dependencies[0].Version != lib.Version {
		t.Errorf("dependencies are %v, the library is %s", app.Dependencies, lib.Version)
	}
	if want := image.Image.Repository + ":" + image.Image.Tag; !strings.Contains(app.Annotations["artifacthub.io/images"], want) {
		t.Errorf("artifacthub.io/images does not name %s", want)
	}
	if to, err := os.Readlink("podnotify-lib"); err != nil || to != library {
		t.Errorf("podnotify-lib is a link to %q: %v", to, err)
	}
}

// TestKeys: the charts and the injection policy know every key that podnotify
// has, as docs/configuration.md lists them, and no other.
func TestKeys(t *testing.T) {
	b, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, services, is := strings.Cut(string(b), "| `name` |")
	if !is {
		t.Fatal("docs/configuration.md has no keys of a service")
	}
	keys := map[string]bool{}
	for line := range strings.Lines(services) {
		if f := strings.Split(line, "`"); strings.HasPrefix(line, "| `") && strings.Contains(line, "`PODNOTIFY_") {
			keys[f[1]] = true
		}
	}
	for _, k := range []string{"notify.address", "select.container"} { // follow from the arrangement
		delete(keys, k)
	}
	config := map[string]bool{}
	for _, r := range rows(t, "", values(t, library)) {
		if k, is := strings.CutPrefix(r.key, "config."); is && r.def != "" {
			config[k] = true
		}
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !config[k] {
			t.Errorf("podnotify has the key %s, the chart has not", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(config)) {
		if !keys[k] {
			t.Errorf("the chart has the key %s, podnotify has not", k)
		}
	}

	policy, err := os.ReadFile("../examples/injection/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"select.pidfile", "respawn.when", "respawn.normal-exit", "fdstore.max"} { // for a parent, or a volume that nobody mounts
		delete(keys, k)
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if !bytes.Contains(policy, []byte("'"+k+"'")) {
			t.Errorf("podnotify has the key %s, the injection policy has not", k)
		}
	}
}

type object map[string]any

// row is one value.
type row struct{ key, def, help string }

// values reads a chart's values.yaml with its comments.
func values(t *testing.T, chart string) *yaml.Node {
	t.Helper()
	var doc yaml.Node
	unmarshal(t, filepath.Join(chart, "values.yaml"), &doc)
	return doc.Content[0]
}

func definitions(t *testing.T) (d object) {
	t.Helper()
	unmarshal(t, "definitions.yaml", &d)
	return d
}

func unmarshal(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// comment splits the comment above a key: what it says, and what it adds to the
// schema.
func comment(key *yaml.Node) (help string, add object, err error) {
	var words []string
	for line := range strings.Lines(key.HeadComment) {
		line = strings.TrimSpace(strings.TrimLeft(line, "#"))
		if s, is := strings.CutPrefix(line, "@schema "); is {
			if err := yaml.Unmarshal([]byte(s), &add); err != nil {
				return "", nil, fmt.Errorf("line %d: %s: %w", key.Line, s, err)
			}
		} else if line != "" {
			words = append(words, line)
		}
	}
	return strings.Join(words, " "), add, nil
}

func newSchema(values *yaml.Node, definitions object) (object, error) {
	used := object{}
	s, err := schemaOf("", values, nil, definitions, used)
	if err != nil {
		return nil, err
	}
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	if len(used) > 0 {
		s["definitions"] = used
	}
	return s, nil
}

// schemaOf is what a default says about its value, and what its comment adds.
func schemaOf(at string, value *yaml.Node, add, definitions, used object) (object, error) {
	s := object{}
	if _, is := add["$ref"]; !is {
		switch value.Tag {
		case "!!str":
			s["type"] = "string"
		case "!!bool":
			s["type"] = "boolean"
		case "!!int":
			s["type"] = "integer"
		case "!!seq":
			s["type"] = "array"
			if add["items"] == nil {
				return nil, fmt.Errorf("line %d: %s: say in @schema what its items are", value.Line, at)
			}
		case "!!map":
			s["type"], s["additionalProperties"] = "object", false
			if len(value.Content) == 0 {
				return nil, fmt.Errorf("line %d: %s: say in @schema what is in it", value.Line, at)
			}
			properties, required := object{}, []any{}
			for i := 0; i < len(value.Content); i += 2 {
				key := value.Content[i]
				help, add, err := comment(key)
				if err != nil {
					return nil, err
				}
				p, err := schemaOf(at+"."+key.Value, value.Content[i+1], add, definitions, used)
				if err != nil {
					return nil, err
				}
				if help != "" {
					p["description"] = help
				}
				properties[key.Value] = p
				if needed(value.Content[i+1], add) {
					required = append(required, key.Value)
				}
			}
			s["properties"] = properties
			if len(required) > 0 {
				s["required"] = required
			}
		default:
			return nil, fmt.Errorf("line %d: %s: a default of kind %s", value.Line, at, value.Tag)
		}
	}
	for k, v := range add {
		s[k] = v
	}
	return s, resolve(s, definitions, used)
}

// needed tells whether the templates could do nothing without a value. Only null
// takes one away: Helm then forgets the default.
func needed(value *yaml.Node, add object) bool {
	switch value.Kind {
	case yaml.ScalarNode:
		return value.Value != ""
	case yaml.MappingNode:
		return len(value.Content) > 0 && add["$ref"] == nil
	}
	return false
}

// resolve turns {$ref: NAME} into a reference that a validator follows, and
// takes the definitions that it needs along.
func resolve(v any, definitions, used object) error {
	var walk func(any) error
	each := func(m map[string]any) error {
		if name, is := m["$ref"].(string); is && !strings.HasPrefix(name, "#") {
			m["$ref"] = "#/definitions/" + name
			if _, seen := used[name]; !seen {
				d, is := definitions[name]
				if !is {
					return fmt.Errorf("definitions.yaml has no %s", name)
				}
				used[name] = d
				if err := walk(d); err != nil {
					return err
				}
			}
		}
		for _, v := range m {
			if err := walk(v); err != nil {
				return err
			}
		}
		return nil
	}
	walk = func(v any) error {
		switch v := v.(type) {
		case object:
			return each(v)
		case map[string]any:
			return each(v)
		case []any:
			for _, v := range v {
				if err := walk(v); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(v)
}

// rows are the values below one, depth first, in the order of the file.
func rows(t *testing.T, under string, value *yaml.Node) (out []row) {
	t.Helper()
	for i := 0; i < len(value.Content); i += 2 {
		key, v := value.Content[i], value.Content[i+1]
		help, add, err := comment(key)
		if err != nil {
			t.Fatal(err)
		}
		at := under + key.Value
		if v.Kind == yaml.MappingNode && len(v.Content) > 0 && add["$ref"] == nil {
			if help != "" {
				out = append(out, row{at, "", help})
			}
			out = append(out, rows(t, at+".", v)...)
			continue
		}
		if help == "" {
			t.Errorf("line %d: %s: say above it what it is", key.Line, at)
		}
		var def any
		if err := v.Decode(&def); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(def)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, row{at, "`" + string(b) + "`", help})
	}
	return out
}

// readme keeps the table between the two marks of a chart's README.md.
func readme(t *testing.T, chart string, rows []row) {
	t.Helper()
	const begin, end = "<!-- values: written by go test ./charts -update -->\n", "<!-- end of values -->\n"
	file := filepath.Join(chart, "README.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, is := strings.Cut(string(b), begin)
	_, after, is2 := strings.Cut(rest, end)
	if !is || !is2 {
		t.Fatalf("%s has no place for the values: %q and %q", file, begin, end)
	}
	var s strings.Builder
	s.WriteString(before + begin + "\n| value | default | what it is |\n|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&s, "| `%s` | %s | %s |\n", r.key, r.def, strings.ReplaceAll(r.help, "|", `\|`))
	}
	s.WriteString("\n" + end + after)
	current(t, file, []byte(s.String()))
}

// current compares a file with what it should be, or writes it.
func current(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err == nil && bytes.Equal(got, want) {
		return
	}
	if !*update {
		t.Errorf("%s is not what values.yaml says; go test ./charts -update", file)
		return
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}
