package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// files lists the files below the top of the tree that keep says yes to, by
// their path from there. Test data and what begins with a dot is left out.
func files(t *testing.T, keep func(path string) bool) []string {
	t.Helper()
	top := root(t)
	var out []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		switch {
		case d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case !d.IsDir() && keep(rel):
			out = append(out, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
	fixed   = regexp.MustCompile("`[^`\n]*`")
)

// anchors are what a heading of a page can be linked by, as GitHub makes them.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(page, ""), -1) {
		out[strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1])] = true
	}
	return out
}

// TestLinks: what a page links to within the tree is there.
func TestLinks(t *testing.T) {
	pages := files(t, func(path string) bool { return strings.HasSuffix(path, ".md") })
	if len(pages) < 10 {
		t.Fatalf("only %d pages", len(pages))
	}
	for _, page := range pages {
		text := fixed.ReplaceAllString(fenced.ReplaceAllString(read(t, page), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			to, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if to != "" {
				target = filepath.Join(filepath.Dir(page), to)
			}
			if _, err := os.Stat(filepath.Join(root(t), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			} else if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s, and %s has no such heading", page, m[1], target)
			}
		}
	}
}

// TestPages: there is a page for each way of being ready and for each check, and
// its index links to it.
func TestPages(t *testing.T) {
	want := map[string][]string{"docs/checks/": lifecycle.CheckNames()}
	for e := lifecycle.ExpectAuto; e <= lifecycle.ExpectNone; e++ {
		want["docs/ready/"] = append(want["docs/ready/"], e.String())
	}
	for dir, names := range want {
		index := read(t, dir+"README.md")
		for _, name := range names {
			if !strings.Contains(index, "("+name+".md)") {
				t.Errorf("%sREADME.md does not link to %s.md", dir, name)
			}
			if !strings.Contains(read(t, dir+name+".md"), name) {
				t.Errorf("%s%s.md is not about it", dir, name)
			}
		}
		if pages := files(t, func(path string) bool { return strings.HasPrefix(path, dir) }); len(pages) != len(names)+1 {
			t.Errorf("%s has %d pages, want one for each of %q and an index", dir, len(pages), names)
		}
	}
}

// TestProofs: the tests that docs/protocol.md names exist, and it names some for
// every word and every way of being ready. That they prove what they are said to
// is what make mutation shows.
func TestProofs(t *testing.T) {
	tests, subtests := map[string]bool{}, ""
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, path := range files(t, func(path string) bool { return strings.HasSuffix(path, "_test.go") }) {
		text := read(t, path)
		for _, m := range function.FindAllStringSubmatch(text, -1) {
			tests[m[1]] = true
		}
		if path == filepath.Join("sidecar", "key_test.go") {
			subtests = text
		}
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	named := func(row string) (word string, names []string) {
		cells := strings.SplitN(row, "|", 3)
		for _, m := range quoted.FindAllStringSubmatch(cells[2], -1) {
			names = append(names, m[1])
		}
		if m := quoted.FindStringSubmatch(cells[1]); m != nil {
			word = m[1]
		}
		return word, names
	}
	table := func(name string) map[string][]string {
		_, rest, found := strings.Cut(read(t, "docs/protocol.md"), "<!-- proof: "+name+" -->\n")
		rows, _, ended := strings.Cut(rest, "<!-- end -->\n")
		if !found || !ended {
			t.Fatalf("docs/protocol.md has no table of %s", name)
		}
		out := map[string][]string{}
		lines := strings.Split(strings.TrimSpace(rows), "\n")
		for _, line := range lines[2:] { // without its head
			word, names := named(line)
			if len(names) == 0 || word == "" {
				t.Errorf("no tests in %q", line)
			}
			out[word] = names
			for _, n := range names {
				f, sub, isSub := strings.Cut(n, "/")
				if !tests[f] {
					t.Errorf("%s is said to be proved by %s, which does not exist", word, n)
				}
				if isSub && !strings.Contains(subtests, "\t\""+sub+"\": func(") {
					t.Errorf("%s is said to be proved by %s, and %s has no such case", word, n, f)
				}
			}
		}
		return out
	}

	words := table("words")
	var known []string
	for k := notify.Key(0); !strings.HasPrefix(k.String(), "Key("); k++ {
		if k == notify.KeyWatchdog {
			known = append(known, "WATCHDOG=1", "WATCHDOG=trigger")
			continue
		}
		known = append(known, k.String()+"=")
	}
	known = append(known, "READY=1", "RELOADING=1", "STOPPING=1", "MAINPIDFD=1", "RESTART_RESET=1", "FDSTORE=1", "FDSTOREREMOVE=1", "FDPOLL=0", "BARRIER=1")
	for _, word := range known {
		if len(words[word]) == 0 {
			t.Errorf("docs/protocol.md names no test for %s", word)
		}
		var m notify.Message
		if err := m.Parse([]byte(word)); err != nil || m.Unknown() > 0 {
			t.Errorf("%s is no word of the protocol (%v)", word, err)
		}
	}
	if len(words) != len(known) {
		t.Errorf("docs/protocol.md has %d words, want %d", len(words), len(known))
	}
	expects := table("expects")
	for e := lifecycle.ExpectAuto; e <= lifecycle.ExpectNone; e++ {
		if len(expects[e.String()]) == 0 {
			t.Errorf("docs/protocol.md names no test for expect: %v", e)
		}
	}
}
