package initfile

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

// entry is one assignment of a unit.
type entry struct {
	section string
	key     string
	value   string
	at      lines
	done    bool // somewhere on the page
}

// name is SECTION.KEY.
func (e *entry) name() string   { return e.section + "." + e.key }
func (e *entry) String() string { return e.key + "=" + e.value }

// logical is a line after its continuations have been joined to it.
type logical struct {
	text string
	at   lines
}

// join follows systemd's rules for lines (systemd.syntax(7)): a backslash at the
// end of a line stands for a space and continues it; comments and blank lines
// are left out, a comment also from within a continued line; and a backslash at
// the end of a comment continues nothing.
func join(text string) (out []logical) {
	var pending strings.Builder
	var at lines
	finish := func() {
		if s := strings.TrimSpace(pending.String()); s != "" {
			out = append(out, logical{s, at})
		}
		pending.Reset()
		at = lines{}
	}
	n := 0
	for l := range strings.Lines(text) {
		n++
		l = strings.TrimSuffix(l, "\n")
		if s := strings.TrimSpace(l); s != "" && strings.ContainsRune("#;", rune(s[0])) {
			continue
		}
		if at.first == 0 {
			at.first = n
		}
		at.last = n
		bare := strings.TrimRight(l, `\`)
		if (len(l)-len(bare))%2 == 1 {
			pending.WriteString(l[:len(l)-1] + " ")
			continue
		}
		pending.WriteString(l)
		finish()
	}
	finish()
	return out
}

// readUnit reads the assignments of a unit. What systemd would ignore it warns
// of.
func (p *page) readUnit(text string) ([]*entry, error) {
	var plain strings.Builder
	var where []lines
	inside, service := false, false
	for _, l := range join(text) {
		switch {
		case l.text[0] == '[':
			if name, ok := strings.CutSuffix(l.text[1:], "]"); !ok || strings.Contains(name, "]") {
				return nil, fmt.Errorf("%s: %q is no section; write it like [Service]", l.at, printable(l.text))
			}
			inside, service = true, service || l.text == "[Service]"
		case !inside:
			p.warnAt(l.at, l.text, "stands before the first section, where systemd ignores it")
			continue
		case !strings.Contains(l.text, "="):
			p.warnAt(l.at, l.text, "has no =, so systemd ignores it")
			continue
		default:
			where = append(where, l.at)
		}
		// go-systemd would join lines at any last backslash.
		plain.WriteString(l.text + " \n")
	}
	if !service {
		return nil, errors.New("it has no section [Service], so it is no unit of a service")
	}
	options, err := unit.DeserializeOptions(trickle{strings.NewReader(plain.String())})
	if err == nil && len(options) != len(where) {
		err = errors.New("its lines cannot be told from each other")
	}
	if err != nil {
		return nil, err
	}
	entries := make([]*entry, len(options))
	for i, o := range options {
		entries[i] = &entry{section: o.Section, key: o.Name, value: o.Value, at: where[i]}
	}
	return entries, nil
}

// trickle reads a little at a time. go-systemd refuses a line of which it has
// 2048 bytes at hand; systemd takes 1 MiB.
type trickle struct{ r io.Reader }

func (t trickle) Read(b []byte) (int, error) { return t.r.Read(b[:min(len(b), 1024)]) }

// unitName is what a unit is called, for its specifiers (systemd.unit(5)).
type unitName struct {
	prefix   string // foo of foo@bar.service
	instance string // bar
	template bool   // there is an @
}

func newUnitName(path string) unitName {
	var n unitName
	base := strings.TrimSuffix(filepath.Base(path), ".service")
	n.prefix, n.instance, n.template = strings.Cut(base, "@")
	return n
}

func (n unitName) String() string {
	if n.template {
		return n.prefix + "@" + n.instance
	}
	return n.prefix
}

// expand replaces specifiers. Those that depend on the host or on an instance
// that is not known stay, and are returned, too.
func (n unitName) expand(s string) (text string, left []string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if v, ok := n.specifier(s[i]); ok {
			b.WriteString(v)
			continue
		}
		b.WriteString(s[i-1 : i+1])
		if 'a' <= s[i] && s[i] <= 'z' || 'A' <= s[i] && s[i] <= 'Z' {
			if spec := s[i-1 : i+1]; !slices.Contains(left, spec) {
				left = append(left, spec)
			}
		}
	}
	return b.String(), left
}

func (n unitName) specifier(c byte) (string, bool) {
	last := func(s string) string { return s[strings.LastIndexByte(s, '-')+1:] }
	switch c {
	case '%':
		return "%", true
	case 'i':
		return n.instance, !n.template || n.instance != ""
	case 'I':
		return unit.UnitNameUnescape(n.instance), !n.template || n.instance != ""
	case 'j':
		return last(n.prefix), true
	case 'J':
		return unit.UnitNameUnescape(last(n.prefix)), true
	case 'n':
		return n.String() + ".service", !n.template || n.instance != ""
	case 'N':
		return n.String(), !n.template || n.instance != ""
	case 'p':
		return n.prefix, true
	case 'P':
		return unit.UnitNameUnescape(n.prefix), true
	case 'C':
		return "/var/cache", true
	case 'E':
		return "/etc", true
	case 'L':
		return "/var/log", true
	case 'S':
		return "/var/lib", true
	case 't':
		return "/run", true
	case 'T':
		return "/tmp", true
	case 'V':
		return "/var/tmp", true
	}
	return "", false
}
