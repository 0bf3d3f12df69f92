package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Origin is where a value was written. The zero Origin is the default.
type Origin struct {
	kind place
	name string // of the flag or variable, or the path of the file
	line int    // in the file, from 1; 0: not known
}

type place uint8

const (
	byDefault place = iota
	byFile
	byEnvironment
	byFlag
	byLabel
)

// String names the origin with its kind: "flag --listen", "environment
// PODNOTIFY_LISTEN", "file /etc/podnotify/podnotify.yaml:3" or "default".
func (o Origin) String() string {
	return [...]string{"", "file ", "environment ", "flag ", ""}[o.kind] + o.Place()
}

// Place is the origin's name alone, which tells its kind well enough inside a
// sentence.
func (o Origin) Place() string {
	switch {
	case o.kind == byDefault:
		return "default"
	case o.line > 0:
		return o.name + ":" + strconv.Itoa(o.line)
	}
	return o.name
}

// Error is one value that cannot be used.
type Error struct {
	Key    string // as in the file: "timeouts.start"
	Value  string // as it was written; "" for a key that is unknown or misplaced
	Origin Origin
	Reason string
	Cure   string // what to do instead; "" where the reason says it all
}

// Error is one line: cannot use KEY "VALUE" (from ORIGIN): reason; cure.
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString("cannot use ")
	b.WriteString(printable(e.Key))
	if e.Value != "" {
		b.WriteString(" " + strconv.Quote(e.Value))
	}
	fmt.Fprintf(&b, " (from %s): %s", printable(e.Origin.Place()), printable(e.Reason))
	if e.Cure != "" {
		b.WriteString("; " + printable(e.Cure))
	}
	return b.String()
}

// Errors is everything that is wrong with a configuration, so that one run
// tells all of it.
type Errors []Error

// Error has one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single Error.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i := range e {
		out[i] = e[i]
	}
	return out
}

// printable keeps a message on its one line: keys and reasons may repeat what a
// file says.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			q := strconv.Quote(s)
			return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
		}
	}
	return s
}

// fault is why a value cannot be used. The parsers return it; the loader adds
// key, value and origin.
type fault struct{ reason, cure string }
