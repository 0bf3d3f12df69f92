package archtest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	coded    = regexp.MustCompile("`([^`]+)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// testsOf lists the tests in files below a directory.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, f := range files(t, func(path string) bool { return strings.HasPrefix(path, dir) && strings.HasSuffix(path, "_test.go") }) {
		for _, m := range testFunc.FindAllStringSubmatch(read(t, f), -1) {
			out[m[1]] = true
		}
	}
	delete(out, "TestMain")
	return out
}

// rows are the cells of all tables of a page, without the heads.
func rows(page string) (out [][]string) {
	head := true
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			head = true
		case strings.HasPrefix(line, "|---"):
			head = false
		case !head:
			out = append(out, strings.Split(strings.Trim(line, "| "), " | "))
		}
	}
	return out
}

// codes are the words of a cell that are set as code.
func codes(cell string) (out []string) {
	for _, m := range coded.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// named wants every row to end with names of tests that there are.
func named(t *testing.T, page string, rows [][]string) map[string]bool {
	t.Helper()
	if len(rows) < 20 {
		t.Fatalf("%s has %d rows", page, len(rows))
	}
	all, used := testsOf(t, ""), map[string]bool{}
	for _, r := range rows {
		names := codes(r[len(r)-1])
		if len(names) == 0 {
			t.Errorf("%s: no test of: %s", page, r[0])
		}
		for _, name := range names {
			if used[name] = true; !all[name] {
				t.Errorf("%s: there is no %s, said to be about: %s", page, name, r[0])
			}
		}
	}
	return used
}

// TestThreats: each row of docs/threats.md has its tests, and each test of test/faults has
// its row.
func TestThreats(t *testing.T) {
	used := named(t, "docs/threats.md", rows(read(t, "docs/threats.md")))
	for name := range testsOf(t, "test/faults/") {
		if !used[name] {
			t.Errorf("docs/threats.md says nothing of %s", name)
		}
	}
}

// TestLimits: each row of docs/limits.md has its test, and the bound is that of the code.
func TestLimits(t *testing.T) {
	table := rows(read(t, "docs/limits.md"))
	named(t, "docs/limits.md", table)
	for _, r := range table {
		if len(r) != 5 {
			t.Errorf("a row has %d cells: %q", len(r), r)
			continue
		}
		at := codes(r[3])
		if len(at) != 2 {
			t.Errorf("not a file and a name: %s", r[3])
			continue
		}
		source := read(t, at[0])
		if !strings.Contains(source, at[1]) {
			t.Errorf("%s: no %s", at[0], at[1])
			continue
		}
		said := strings.TrimSuffix(r[1], " apart")
		if !regexp.MustCompile(`^\d+( m?s)?$`).MatchString(said) {
			continue // no figure
		}
		m := regexp.MustCompile(`(?m)^\s*(?:const )?` + at[1] + `\s*[:=]\s*([^,/\n]+)`).FindStringSubmatch(source)
		if m == nil {
			t.Errorf("%s: %s has no value", at[0], at[1])
		} else if is := figure(m[1]); is != said {
			t.Errorf("%s: %s is %s, and docs/limits.md says %s", at[0], at[1], is, said)
		}
	}
}

// figure is a constant expression as a person writes its value.
func figure(expr string) string {
	expr = strings.TrimSpace(expr)
	if a, b, ok := strings.Cut(expr, " << "); ok {
		n, _ := strconv.Atoi(a)
		bits, _ := strconv.Atoi(b)
		return strconv.Itoa(n << bits)
	}
	n, unit := 1, expr
	if a, b, ok := strings.Cut(expr, " * "); ok {
		n, _ = strconv.Atoi(a)
		unit = b
	}
	switch unit {
	case "time.Minute":
		return fmt.Sprintf("%d s", 60*n)
	case "time.Second":
		return fmt.Sprintf("%d s", n)
	case "time.Millisecond":
		return fmt.Sprintf("%d ms", n)
	}
	return expr
}
