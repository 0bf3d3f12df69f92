package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "write the man pages in docs/man")

const manDir = "../../docs/man"

// The man pages are made of the commands themselves. Those of podnotify-node are its own
// affair. To write them anew:
//
//	go test ./cmd/podnotify ./cmd/podnotify-node -run TestManPages -update
func TestManPages(t *testing.T) {
	want := map[string]string{}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		c.DisableAutoGenTag = true
		want[strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"] = manPage(t, c)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				visit(sub)
			}
		}
	}
	visit(newRootCommand(&app{}))

	ours := func(name string) bool { return !strings.HasPrefix(name, "podnotify-node") }
	if *update {
		old, err := filepath.Glob(filepath.Join(manDir, "*.1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range old {
			if ours(filepath.Base(file)) {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(manDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(manDir)
	if err != nil {
		t.Fatal(err)
	}
	var there, wanted []string
	for _, e := range entries {
		if ours(e.Name()) {
			there = append(there, e.Name())
		}
	}
	for name, text := range want {
		wanted = append(wanted, name)
		if b, err := os.ReadFile(filepath.Join(manDir, name)); err != nil || string(b) != text {
			t.Errorf("docs/man/%s is not what the command says (%v); if that is meant: go test ./cmd/podnotify -run TestManPages -update", name, err)
		}
	}
	if slices.Sort(wanted); !slices.Equal(there, wanted) {
		t.Errorf("docs/man has %q, want %q", there, wanted)
	}
}

// manPage leaves out the date: a page changes when its command does.
func manPage(t *testing.T, c *cobra.Command) string {
	t.Helper()
	var b bytes.Buffer
	title := strings.ToUpper(strings.ReplaceAll(c.CommandPath(), " ", "-"))
	if err := doc.GenMan(c, &doc.GenManHeader{Title: title, Section: "1", Source: "podnotify", Manual: "podnotify", Date: &time.Time{}}, &b); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(b.String(), `"Jan 0001"`, `""`, 1)
}
