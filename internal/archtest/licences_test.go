package archtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// licences are those that what we link may have, told by a sentence of each. All let us
// pass the programs on, if their texts go with them.
var licences = []struct{ name, sentence, without string }{
	{"Apache-2.0", "Apache License Version 2.0", ""},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy", ""},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from this software", ""},
	{"BSD-2-Clause", "Redistribution and use in source and binary forms", "may be used to endorse or promote"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose", ""},
}

// linked is a module that a program is made of, and what its authors want to be passed
// on with it.
type linked struct {
	path, version string
	texts         []string
}

// TestLicences: the files THIRD_PARTY, which go into the images, have the licence of all
// that is linked, and each is one of those above.
func TestLicences(t *testing.T) {
	for _, program := range []string{"cmd/podnotify", "cmd/podnotify-healthcheck", "cmd/podnotify-node"} {
		got := thirdParty(t, filepath.Base(program), modules(t, "./"+program))
		file := filepath.Join(root(t), program, "THIRD_PARTY")
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
			t.Errorf("what %s links, or the licence of it, has changed: read it, then go test ./internal/archtest -update", program)
		}
	}
}

// modules lists what a program links besides our own.
func modules(t *testing.T, program string) []linked {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,Module", program)
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list packages: %v", err)
	}
	texts := map[string]map[string]bool{} // by module, the paths of its files
	versions := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p struct {
			Dir    string
			Module *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		m := p.Module
		if versions[m.Path] = m.Version; texts[m.Path] == nil {
			texts[m.Path] = map[string]bool{}
		}
		// A package may be under another licence than its module.
		for dir := p.Dir; ; dir = filepath.Dir(dir) {
			for _, pattern := range []string{"LICEN[CS]E*", "COPYING*", "NOTICE*", "COPYRIGHT*"} {
				found, _ := filepath.Glob(filepath.Join(dir, pattern))
				for _, f := range found {
					if fi, err := os.Stat(f); err == nil && fi.Mode().IsRegular() && !slices.Contains([]string{".go", ".docs"}, filepath.Ext(f)) {
						texts[m.Path][f] = true
					}
				}
			}
			if dir == m.Dir || len(dir) < len(m.Dir) {
				break
			}
		}
	}
	out, err = exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	std := linked{path: "the Go standard library"} // of whichever release builds it
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	std.texts = []string{string(text)}
	all := []linked{std}
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		m := linked{path: path, version: versions[path]}
		for _, f := range slices.Sorted(maps.Keys(texts[path])) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			m.texts = append(m.texts, string(b))
		}
		all = append(all, m)
	}
	return all
}

// kinds names the licences that a module has.
func (m linked) kinds() []string {
	var out []string
	all := strings.Join(strings.Fields(strings.ReplaceAll(strings.Join(m.texts, " "), "Apache License,", "Apache License")), " ")
	for _, l := range licences {
		if strings.Contains(all, l.sentence) && (l.without == "" || !strings.Contains(all, l.without)) {
			out = append(out, l.name)
		}
	}
	return out
}

// thirdParty is the text of a file THIRD_PARTY: a table, then each text once.
func thirdParty(t *testing.T, program string, modules []linked) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s is under the licence in the file LICENSE. It is linked with what follows, whose\nauthors want these texts to go with it. Written by: go test ./internal/archtest -update\n\n", program)
	of := map[string][]string{} // whose a text is
	var order []string
	for _, m := range modules {
		kinds := m.kinds()
		if len(kinds) == 0 {
			t.Errorf("%s links %s, whose licence is none of those that archtest knows; read it", program, m.path)
		}
		fmt.Fprintf(&b, "%-55s %-12s %s\n", m.path, m.version, strings.Join(kinds, ", "))
		for _, text := range m.texts {
			text = strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n"))
			if of[text] == nil {
				order = append(order, text)
			}
			of[text] = append(of[text], m.path)
		}
	}
	for _, text := range order {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(of[text], "\n"), text)
	}
	return b.String()
}
