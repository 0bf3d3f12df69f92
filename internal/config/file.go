package config

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// item is one value of a file.
type item struct {
	value string
	line  int
}

// block is the values of one service, or of podnotify itself, by key.
type block struct {
	line  int
	items map[string]item
}

// reader takes a file apart. What is wrong with it goes to fail, with all the
// rest of the file still read.
type reader struct {
	path string
	fail func(Error)
}

// read returns the values of podnotify itself and those of each service. An
// empty file is a valid one. The error is that the file is no YAML at all.
func (r *reader) read(text []byte) (process block, services []block, bad *fault) {
	process = block{items: map[string]item{}}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return process, nil, nil
	case err != nil:
		return process, nil, syntax(err, text)
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return process, nil, &fault{"line " + strconv.Itoa(second.Line) + ": a second YAML document begins", "write one document"}
	case !errors.Is(err, io.EOF):
		return process, nil, syntax(err, text)
	}
	r.pairs(doc.Content[0], fileKey, "", func(key string, k, v *yaml.Node) {
		switch {
		case key == "services":
			services = r.services(v)
		case isProcessKey(key):
			r.scalar(key, v, process.items)
		case isServiceKey(key) || sections[key]:
			r.misplaced(key, k, "belongs to a service", "write it in the list services")
		default:
			r.unknown(key, k, append(processFileKeys(), "services"))
		}
	})
	return process, services, nil
}

// services reads the list of services.
func (r *reader) services(list *yaml.Node) (out []block) {
	list = resolve(list)
	if isNull(list) {
		return nil
	}
	if list.Kind != yaml.SequenceNode {
		r.misplaced("services", list, "is "+kindOf(list)+", not a list", "begin each service with \"- name: NAME\"")
		return nil
	}
	for _, n := range list.Content {
		b := block{line: n.Line, items: map[string]item{}}
		r.service(n, "services", "", b.items)
		out = append(out, b)
	}
	return out
}

// service reads a service or, with a prefix, a section of one.
func (r *reader) service(n *yaml.Node, name, prefix string, into map[string]item) {
	r.pairs(n, name, prefix, func(key string, k, v *yaml.Node) {
		switch {
		case isServiceKey(key):
			r.scalar(key, v, into)
		case sections[key]:
			r.service(v, key, key+".", into)
		case prefix == "" && isProcessKey(key):
			r.misplaced(key, k, "belongs to podnotify, not to a service", "write it at the top of the file")
		default:
			r.unknown(key, k, serviceFileKeys())
		}
	})
}

// pairs calls f for each key of the mapping called name, under its full name,
// which prefix begins.
func (r *reader) pairs(n *yaml.Node, name, prefix string, f func(key string, k, v *yaml.Node)) {
	n = resolve(n)
	switch {
	case isNull(n):
		return
	case n.Kind != yaml.MappingNode:
		r.misplaced(name, n, "is "+kindOf(n)+", not a mapping", "write \"KEY: VALUE\" lines")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := prefix + k.Value
		switch first, twice := seen[key]; {
		case k.Kind != yaml.ScalarNode:
			r.misplaced(name, k, "has a key that is "+kindOf(k), "")
		case k.Tag == "!!merge":
			r.misplaced(prefix+"<<", k, "merging is not supported", "write the keys out, or name a whole section by *ALIAS")
		case twice:
			r.misplaced(key, k, "is there already in line "+strconv.Itoa(first), "remove one")
		default:
			seen[key] = k.Line
			f(key, k, v)
		}
	}
}

// scalar keeps the text of a value, or of a list of them with commas between.
// A null is a key left out.
func (r *reader) scalar(key string, n *yaml.Node, into map[string]item) {
	at := n.Line
	n = resolve(n)
	switch {
	case isNull(n):
	case n.Kind == yaml.ScalarNode:
		into[key] = item{n.Value, at}
	case n.Kind == yaml.SequenceNode && isList(key):
		var words []string
		for _, w := range n.Content {
			if w = resolve(w); w.Kind != yaml.ScalarNode {
				r.misplaced(key, w, "has "+kindOf(w)+" in its list", "")
				return
			}
			words = append(words, w.Value)
		}
		into[key] = item{strings.Join(words, ","), at}
	case isList(key):
		r.misplaced(key, n, "is "+kindOf(n)+", not a list", "")
	default:
		r.misplaced(key, n, "is "+kindOf(n)+", not a single value", "")
	}
}

func (r *reader) misplaced(key string, at *yaml.Node, reason, cure string) {
	r.fail(Error{Key: key, Origin: Origin{byFile, r.path, at.Line}, Reason: reason, Cure: cure})
}

// unknown names the nearest of the known keys, or all of them at this place if
// none is near.
func (r *reader) unknown(key string, at *yaml.Node, known []string) {
	cure := "did you mean " + nearest(key, known) + "?"
	if nearest(key, known) == "" {
		prefix := key[:strings.LastIndexByte(key, '.')+1]
		var here []string
		for _, k := range known {
			if rest, ok := strings.CutPrefix(k, prefix); ok && !strings.Contains(rest, ".") {
				here = append(here, rest)
			}
		}
		cure = "known here: " + strings.Join(here, ", ")
	}
	r.misplaced(key, at, "there is no such key", cure)
}

// sections are the names before the dots of service keys.
var sections = func() map[string]bool {
	out := map[string]bool{}
	for i := range serviceKeys {
		if s, _, ok := strings.Cut(serviceKeys[i].name, "."); ok {
			out[s] = true
		}
	}
	return out
}()

func isProcessKey(name string) bool { return slices.Contains(processFileKeys(), name) }

func isServiceKey(name string) bool {
	return slices.ContainsFunc(serviceKeys, func(k serviceKey) bool { return k.name == name })
}

// isList reports whether a key's value may be written as a list.
func isList(name string) bool { return name == "respawn.normal-exit" }

func processFileKeys() (out []string) {
	for i := range processKeys {
		if processKeys[i].name != fileKey {
			out = append(out, processKeys[i].name)
		}
	}
	return out
}

// serviceFileKeys lists the keys of a service and their sections.
func serviceFileKeys() (out []string) {
	for i := range serviceKeys {
		out = append(out, serviceKeys[i].name)
	}
	return append(out, slices.Sorted(maps.Keys(sections))...)
}

// resolve follows aliases. An anchor cannot be an alias itself, so one step is
// enough.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "a single value"
}

// syntax is the fault of a text that is no YAML. The library's message may lack
// the line, and never says the most frequent reason: tabs.
func syntax(err error, text []byte) *fault {
	bad := &fault{reason: "is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	for i, line := range bytes.Split(text, []byte("\n")) {
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 && len(indent) < len(line) {
			bad.cure = "indent line " + strconv.Itoa(i+1) + " by spaces, not by a tab"
			break
		}
	}
	return bad
}

// nearest returns the known name that is a slip of the pen away from name, or
// "". A name without its section is near too.
func nearest(name string, known []string) string {
	best, least := "", max(2, len(name)/3)+1
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, k := range known {
		d := distance(name, k)
		if end := k[strings.LastIndexByte(k, '.')+1:]; end != k {
			d = min(d, 1+distance(last, end))
		}
		if d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance is Levenshtein's: how many bytes to insert, remove or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
