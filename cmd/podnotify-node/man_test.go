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

// The man pages of podnotify-node are made as those of podnotify are. To write them anew:
//
//	go test ./cmd/podnotify ./cmd/podnotify-node -run TestManPages -update
func TestManPages(t *testing.T) {
	const dir = "../../docs/man"
	want := map[string]string{}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		c.DisableAutoGenTag = true
		name := strings.ReplaceAll(c.CommandPath(), " ", "-")
		var b bytes.Buffer
		err := doc.GenMan(c, &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: "podnotify", Manual: "podnotify", Date: &time.Time{}}, &b)
		if err != nil {
			t.Fatal(err)
		}
		want[filepath.Join(dir, name+".1")] = strings.Replace(b.String(), `"Jan 0001"`, `""`, 1) // a page changes when its command does
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				visit(sub)
			}
		}
	}
	visit(newRoot(&app{}))
	there, err := filepath.Glob(filepath.Join(dir, "podnotify-node*.1"))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for _, file := range there {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		there = nil
		for file, text := range want {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			there = append(there, file)
		}
	}
	var wanted []string
	for file, text := range want {
		wanted = append(wanted, file)
		if b, err := os.ReadFile(file); err != nil || string(b) != text {
			t.Errorf("%s is not what the command says (%v); if that is meant: go test ./cmd/podnotify-node -run TestManPages -update", file, err)
		}
	}
	slices.Sort(wanted)
	if slices.Sort(there); !slices.Equal(there, wanted) {
		t.Errorf("there are %q, want %q", there, wanted)
	}
}
