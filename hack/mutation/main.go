// Mutation shows that the tests of the protocol prove what docs/protocol.md says
// they prove. Word by word it has podnotify forget one, in a copy of one source
// file that the go command is given instead (-overlay), and runs TestKey: the
// tests that the word's row names must fail, and all others must pass.
//
//	go run ./hack/mutation [WORD...]
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	table = "docs/protocol.md"
	begin = "<!-- proof: words -->\n"
	end   = "<!-- end -->\n"
)

// patch is one line of source without which a word means nothing.
type patch struct{ file, old, new string }

// patches of the words that are not simply names which the parser knows.
var patches = map[string]patch{
	"WATCHDOG=1":       {"sidecar/receive.go", "apply(lifecycle.Event{Kind: lifecycle.Ping, Who: who})", ""},
	"WATCHDOG=trigger": {"sidecar/receive.go", "apply(lifecycle.Event{Kind: lifecycle.Trigger, Who: who})", ""},
}

func patchOf(word string) patch {
	if p, ok := patches[word]; ok {
		return p
	}
	name, _, _ := strings.Cut(word, "=")
	return patch{"notify/parse.go", fmt.Sprintf("case %q:", name), fmt.Sprintf("case %q:", name+" is forgotten")}
}

// row is a word and the tests that fail without it.
type row struct {
	word  string
	tests []string
}

var quoted = regexp.MustCompile("`([^`]+)`")

func rows() ([]row, error) {
	b, err := os.ReadFile(table)
	if err != nil {
		return nil, err
	}
	_, rest, found := strings.Cut(string(b), begin)
	text, _, ended := strings.Cut(rest, end)
	if !found || !ended {
		return nil, fmt.Errorf("cannot find the table of words in %s: no %q that ends in %q", table, begin, end)
	}
	var out []row
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		word := quoted.FindStringSubmatch(cells[1])
		if word == nil {
			continue
		}
		r := row{word: word[1]}
		for _, t := range quoted.FindAllStringSubmatch(cells[2], -1) {
			r.tests = append(r.tests, t[1])
		}
		slices.Sort(r.tests)
		out = append(out, r)
	}
	return out, nil
}

var result = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL): (TestKey/\S+)`)

// run runs TestKey with one source file replaced, and sorts its tests.
func run(p patch) (passed, failed []string, err error) {
	args := []string{"test", "-count=1", "-timeout", "2m", "-v", "-run", "^TestKey$"}
	if p.file != "" {
		dir, err := os.MkdirTemp("", "podnotify-mutation-")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir)
		overlay, err := p.overlay(dir)
		if err != nil {
			return nil, nil, err
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, "./sidecar")...).CombinedOutput()
	for _, m := range result.FindAllStringSubmatch(string(out), -1) {
		if m[1] == "PASS" {
			passed = append(passed, m[2])
		} else {
			failed = append(failed, m[2])
		}
	}
	slices.Sort(failed)
	if len(passed)+len(failed) == 0 {
		return nil, nil, fmt.Errorf("cannot run the tests: %w\n%s", cmp.Or(err, errors.New("there are none")), out)
	}
	return passed, failed, nil
}

func (p patch) overlay(dir string) (string, error) {
	b, err := os.ReadFile(p.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), p.old); n != 1 {
		return "", fmt.Errorf("cannot patch %s: %q is there %d times, not once", p.file, p.old, n)
	}
	from, err := filepath.Abs(p.file)
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, filepath.Base(p.file))
	if err := os.WriteFile(to, []byte(strings.Replace(string(b), p.old, p.new, 1)), 0o600); err != nil {
		return "", err
	}
	b, err = json.Marshal(map[string]map[string]string{"Replace": {from: to}})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, b, 0o600)
}

func check(words []string) error {
	all, err := rows()
	if err != nil {
		return err
	}
	passed, failed, err := run(patch{})
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("cannot begin: with every word known %s fail", strings.Join(failed, ", "))
	}
	total, wrong, done := len(passed), 0, 0
	for _, r := range all {
		if len(words) > 0 && !slices.Contains(words, r.word) {
			continue
		}
		done++
		passed, failed, err := run(patchOf(r.word))
		switch {
		case err != nil:
			return fmt.Errorf("without %s: %w", r.word, err)
		case len(passed)+len(failed) != total:
			return fmt.Errorf("without %s: %d of %d tests have run", r.word, len(passed)+len(failed), total)
		case !slices.Equal(failed, r.tests):
			wrong++
			fmt.Printf("FAIL without %s: %s fail, %s names %s\n", r.word, strings.Join(failed, ", "), table, strings.Join(r.tests, ", "))
		default:
			fmt.Printf("ok   without %s: %s fail, %d others pass\n", r.word, strings.Join(failed, ", "), len(passed))
		}
	}
	switch {
	case done == 0:
		return fmt.Errorf("cannot find %s in the table of %s", strings.Join(words, ", "), table)
	case wrong > 0:
		return fmt.Errorf("%d of %d words are not proved by the tests that %s names", wrong, done, table)
	}
	return nil
}

func main() {
	if err := check(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
		os.Exit(1)
	}
}
