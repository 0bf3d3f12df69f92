package lifecycle

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables into docs/lifecycle.md")

const (
	docFile  = "../../docs/lifecycle.md"
	docBegin = "<!-- generated -->\n"
	docEnd   = "<!-- /generated -->\n"
)

// The tables of docs/lifecycle.md are the machine's own. To write them anew:
//
//	go test ./sidecar/lifecycle -run TestDoc -update
func TestDoc(t *testing.T) {
	b, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(b), docBegin)
	tables := []string{Answers(), Table()}
	if len(parts) != len(tables)+1 {
		t.Fatalf("%s has %d generated parts, want %d", docFile, len(parts)-1, len(tables))
	}
	var want strings.Builder
	want.WriteString(parts[0])
	for i, p := range parts[1:] {
		_, rest, ok := strings.Cut(p, docEnd)
		if !ok {
			t.Fatalf("%s: generated part %d has no end", docFile, i+1)
		}
		want.WriteString(docBegin + tables[i] + docEnd + rest)
	}
	if want.String() == string(b) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the machine does; run go test ./sidecar/lifecycle -run TestDoc -update", docFile)
	}
	if err := os.WriteFile(docFile, []byte(want.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The table is total: every cell does something, if only nothing, and says what.
func TestTableIsTotal(t *testing.T) {
	for p := range phases {
		if p.String() == "" {
			t.Errorf("phase %d has no name", p)
		}
		for k := range kinds {
			c := table[p][k]
			if c.do == nil || c.doc == "" {
				t.Errorf("%v, %v: empty", p, k)
			}
			if strings.ContainsAny(c.doc, "|\n") {
				t.Errorf("%v, %v: %q breaks the Markdown table", p, k, c.doc)
			}
		}
	}
	for k := range kinds {
		if k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
	}
	if got := len(Phases()); got != int(phases) {
		t.Errorf("Phases lists %d of %d", got, phases)
	}
	if lines := strings.Count(Table(), "\n"); lines != int(kinds)+2 {
		t.Errorf("the table has %d lines, want a row for each of %d kinds and two", lines, kinds)
	}
}
