// Package archtest holds the walls of the house as tests: who may import whom,
// what podnotify must not weigh, and words that must not be used.
package archtest

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/podnotify/podnotify"

var update = flag.Bool("update", false, "rewrite cmd/podnotify/imports.txt")

// allowed lists, for every room, what of ours it may import and which outside
// modules. What is not listed may import neither.
var allowed = map[string]struct{ ours, others []string }{
	"notify":             {nil, []string{"golang.org/x/sys"}},
	"internal/proc":      {nil, []string{"golang.org/x/sys"}},
	"stopwatch":          {[]string{"internal/proc"}, []string{"golang.org/x/sys"}},
	"sidecar/lifecycle":  {nil, nil},
	"internal/journal":   {[]string{"sidecar/lifecycle", "internal/proc"}, []string{"golang.org/x/sys"}},
	"sidecar":            {[]string{"sidecar/lifecycle", "notify", "stopwatch", "internal/proc", "internal/journal"}, []string{"golang.org/x/sys"}},
	"probes":             {[]string{"sidecar/lifecycle"}, []string{"github.com/heptiolabs/healthcheck"}},
	"internal/metrics":   {[]string{"sidecar/lifecycle"}, []string{"github.com/prometheus/client_golang", "github.com/prometheus/common/expfmt"}},
	"internal/control":   {[]string{"sidecar/lifecycle", "probes"}, []string{"golang.org/x/sys"}},
	"internal/supervise": {[]string{"internal/proc", "stopwatch"}, []string{"golang.org/x/sys"}},
	"internal/config": {[]string{"sidecar", "sidecar/lifecycle", "probes", "notify"},
		[]string{"github.com/spf13/viper", "github.com/spf13/pflag", "go.yaml.in/yaml/v3", "golang.org/x/sys"}},
	"internal/initfile":         {[]string{"internal/config"}, []string{"github.com/coreos/go-systemd/v22/unit"}},
	"internal/ask":              {nil, nil},
	"internal/display":          {[]string{"internal/ask", "probes", "sidecar/lifecycle"}, nil},
	"internal/ctrd":             {[]string{"internal/proc"}, []string{"github.com/containerd", "golang.org/x/sys", "google.golang.org/grpc"}},
	"cmd/podnotify-node":        {[]string{"*"}, []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sync", "golang.org/x/sys"}},
	"internal/lean":             {nil, nil},
	"internal/logs":             {nil, []string{"golang.org/x/sys"}},
	"internal/rundir":           {nil, []string{"golang.org/x/sys"}},
	"internal/archtest":         {[]string{"notify", "sidecar/lifecycle"}, nil},
	"internal/testdaemon":       {[]string{"notify"}, []string{"golang.org/x/sys"}},
	"test":                      {[]string{"internal/testdaemon", "internal/proc"}, []string{"golang.org/x/sys", "github.com/coreos/go-systemd/v22", "go.yaml.in/yaml/v3"}},
	"test/faults":               {nil, []string{"golang.org/x/sys"}},
	"cmd/podnotify":             {[]string{"*"}, []string{"github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/sync", "golang.org/x/sys"}},
	"cmd/podnotify-healthcheck": {[]string{"internal/ask", "internal/lean"}, nil},
	"bench":                     {nil, []string{"golang.org/x/sys"}},
	"bench/ref/nethttp":         {nil, nil},
	"bench/ref/dial":            {nil, nil},
	"bench/ref/goparent":        {nil, []string{"golang.org/x/sys"}},
	"bench/ref/sleep":           {nil, nil},
	"hack/mutation":             {nil, nil},
	"examples/mydaemon/go":      {nil, []string{"golang.org/x/sys"}},
	"charts":                    {nil, []string{"go.yaml.in/yaml/v3"}},
}

// heavy is what podnotify does not link, and why.
var heavy = map[string]string{
	"github.com/containerd/containerd": "10 MB more in every pod; it belongs to podnotify-node",
	"google.golang.org/grpc":           "2 MB more in every pod; it belongs to podnotify-node",
	"k8s.io/client-go":                 "podnotify asks no API server; the platform asks podnotify",
	"go.opentelemetry.io":              "metrics are scraped",
	"github.com/stretchr/testify":      "for tests of others",
}

// pure packages may import these of the standard library and no more: they read
// no clock and do no I/O.
var pure = map[string][]string{"sidecar/lifecycle": {"fmt", "slices", "strconv", "strings", "time"}}

type pkg struct {
	ImportPath  string
	Standard    bool
	GoFiles     []string
	Imports     []string
	TestImports []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Standard,GoFiles,Imports,TestImports"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list packages: %v\n%s", err, stderr.Bytes())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "..", "..")
}

func TestImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		imports := p.Imports
		if len(p.GoFiles) == 0 { // a room of tests
			imports = p.TestImports
		}
		rule, ok := allowed[room]
		if !ok {
			if len(imports) > 0 {
				t.Errorf("%s has no import rule: add one to %s and to CONTRIBUTING.md", room, "internal/archtest")
			}
			continue
		}
		for _, i := range imports {
			switch mine, ours := strings.CutPrefix(i, module+"/"); {
			case ours:
				if !slices.Contains(rule.ours, mine) && !slices.Contains(rule.ours, "*") {
					t.Errorf("%s may not import %s", room, mine)
				}
			case !strings.Contains(strings.Split(i, "/")[0], "."): // standard library
				if std, ok := pure[room]; ok && !slices.Contains(std, i) {
					t.Errorf("%s may not import %s: it is pure", room, i)
				}
			default:
				if !slices.ContainsFunc(rule.others, func(m string) bool { return i == m || strings.HasPrefix(i, m+"/") }) {
					t.Errorf("%s may not import %s", room, i)
				}
			}
		}
	}
}

// TestWeight compares the import closures of the programs with the committed ones: a
// new dependency is seen in review.
func TestWeight(t *testing.T) {
	for _, program := range []string{"cmd/podnotify", "cmd/podnotify-node"} {
		var closure []string
		for _, p := range list(t, "-deps", "./"+program) {
			if p.Standard {
				continue
			}
			closure = append(closure, p.ImportPath)
			for path, why := range heavy {
				if program == "cmd/podnotify" && strings.HasPrefix(p.ImportPath, path) {
					t.Errorf("podnotify links %s: %s", p.ImportPath, why)
				}
			}
		}
		slices.Sort(closure)
		got := strings.Join(closure, "\n") + "\n"
		file := filepath.Join(root(t), program, "imports.txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the import closure of %s changed; if that is meant: go test ./internal/archtest -update\ngot:\n%swant:\n%s", program, got, want)
		}
	}
}

// forbidden calls, where they are allowed all the same, and why.
var forbidden = []struct {
	call string
	in   []string
	why  string
}{
	{"unix.Kill", nil, "a bare number may name another process by now: signals go through proc.Handle"},
	{"syscall.Kill", nil, "a bare number may name another process by now: signals go through proc.Handle"},
	{"os.FindProcess", nil, "a bare number may name another process by now: processes are held by proc.Handle"},
	{"unix.PidfdSendSignal", []string{"internal/proc"}, "internal/proc is the only place that signals"},
	{"time.Now", []string{"cmd", "notify", "stopwatch", "internal", "probes", "examples", "sidecar/service.go", "sidecar/node.go", "bench", "test"}, "the machine is told the time"},
}

func TestForbiddenCalls(t *testing.T) {
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			for _, f := range forbidden {
				if x.Name+"."+sel.Sel.Name == f.call && !slices.ContainsFunc(f.in, func(p string) bool { return strings.HasPrefix(rel, p) }) {
					t.Errorf("%s uses %s: %s", rel, f.call, f.why)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDocumented keeps the documents true: every room has a line in
// CONTRIBUTING.md ("where does this line go?").
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root(t), "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	for room := range allowed {
		if !strings.Contains(string(b), "`"+room) {
			t.Errorf("CONTRIBUTING.md does not say what belongs into %s", room)
		}
	}
}
