package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the generated parts of docs/configuration.md")

const docs = "../../docs/configuration.md"

// TestDocs keeps docs/configuration.md true to the tables: what stands between
// its markers is made from them.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for name, text := range map[string]string{
		"podnotify's keys": keyTable(processKeys),
		"service's keys":   keyTable(serviceKeys),
	} {
		begin, end := "<!-- generated: "+name+" -->\n", "<!-- end -->\n"
		head, rest, found := strings.Cut(got, begin)
		_, tail, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("%s has no part %q that ends in %q", docs, begin, end)
		}
		got = head + begin + text + end + tail
	}
	if *update {
		if err := os.WriteFile(docs, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(b) {
		t.Errorf("%s is not what the tables say; if that is meant: go test ./internal/config -run TestDocs -update", docs)
	}
}

func keyTable[T any](keys []key[T]) string {
	var b strings.Builder
	b.WriteString("| key | default | meaning | flag and variable |\n|---|---|---|---|\n")
	for i := range keys {
		k := &keys[i]
		def := "(empty)"
		if k.def != "" {
			def = "`" + k.def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `--%s %s`<br>`%s` |\n", k.name, def, k.help, k.flag(), k.word, k.env())
	}
	return b.String()
}
