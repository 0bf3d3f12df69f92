package initfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/podnotify/podnotify/internal/config"
)

// lines are where something stands in a file, counted from 1.
type lines struct{ first, last int }

func (l lines) String() string {
	if l.first == l.last {
		return "line " + strconv.Itoa(l.first)
	}
	return "lines " + strconv.Itoa(l.first) + "-" + strconv.Itoa(l.last)
}

// page is a configuration of one service that is being written.
type page struct {
	source   string
	mode     config.Mode
	name     string
	command  []string // comment lines
	values   []value
	warnings []remark
	rest     []group
	lost     int
}

// value is a key of the service with what it comes from.
type value struct{ key, text, why string }

// group is lines that are dropped for one reason.
type group struct {
	reason string
	lines  []remark
}

// remark is something about the file, or with the zero lines about all of it.
type remark struct {
	at   lines
	text string
}

func byLine(x, y remark) int { return x.at.first - y.at.first }

// order is that of the keys of a service.
var order = []string{
	"name", "expect", "job", "notify.access", "select.pidfile", "timeouts.start", "timeouts.reload", "timeouts.stop", "watchdog.interval", "watchdog.signal",
	"signals.kill", "signals.reload", "respawn.mode", "respawn.when", "respawn.normal-exit", "respawn.limit", "respawn.interval",
	"respawn.delay", "respawn.max-delay", "fdstore.max",
}

// set gives a key its value. why is what stands beside it.
func (p *page) set(key, text, why string) { p.values = append(p.values, value{key, text, why}) }

// from is the why of a value that stands in the file.
func from(at lines, text string) string { return at.String() + ": " + printable(text) }

// warn warns of the file as a whole.
func (p *page) warn(text string) { p.warnings = append(p.warnings, remark{lines{}, text}) }

// warnAt warns of something in the file.
func (p *page) warnAt(at lines, text, what string) {
	p.warnings = append(p.warnings, remark{at, from(at, text) + ": " + what})
}

// drop notes what of the file has no counterpart, and why.
func (p *page) drop(at lines, text, reason string) {
	p.lost += at.last - at.first + 1
	i := slices.IndexFunc(p.rest, func(g group) bool { return g.reason == reason })
	if i < 0 {
		i = len(p.rest)
		p.rest = append(p.rest, group{reason: reason})
	}
	p.rest[i].lines = append(p.rest[i].lines, remark{at, text})
}

// yaml writes the page.
func (p *page) yaml() []byte {
	var b strings.Builder
	way := "podnotify run"
	if p.mode == config.Sidecar {
		way = "podnotify sidecar"
	}
	fmt.Fprintf(&b, "# %s, imported for %s.\n", printable(p.source), way)
	if len(p.command) > 0 {
		b.WriteString("#\n")
	}
	for _, c := range p.command {
		fmt.Fprintf(&b, "# %s\n", c)
	}
	if len(p.warnings) > 0 {
		b.WriteString("#\n# Warnings:\n")
	}
	slices.SortStableFunc(p.warnings, byLine)
	for _, w := range p.warnings {
		fmt.Fprintf(&b, "#   %s\n", w.text)
	}
	b.WriteString("\nservices:\n")
	p.keys(&b)
	if len(p.rest) > 0 {
		b.WriteString("\n# Without a counterpart, and why:\n")
	}
	for _, g := range p.rest {
		slices.SortStableFunc(g.lines, byLine)
	}
	slices.SortStableFunc(p.rest, func(x, y group) int { return byLine(x.lines[0], y.lines[0]) })
	for _, g := range p.rest {
		fmt.Fprintf(&b, "#\n# %s\n", g.reason)
		for _, l := range g.lines {
			fmt.Fprintf(&b, "#   %s\n", from(l.at, l.text))
		}
	}
	return []byte(b.String())
}

// keys writes the one service, with the comments in a column.
func (p *page) keys(b *strings.Builder) {
	values := append([]value{{"name", p.name, ""}}, p.values...)
	slices.SortStableFunc(values, func(x, y value) int { return slices.Index(order, x.key) - slices.Index(order, y.key) })
	var rows [][2]string
	section := ""
	for _, v := range values {
		key, indent := v.key, "    "
		if s, k, nested := strings.Cut(v.key, "."); nested {
			if s != section {
				rows = append(rows, [2]string{indent + s + ":"})
			}
			section, key, indent = s, k, "      "
		}
		if v.key == "name" {
			indent = "  - "
		}
		rows = append(rows, [2]string{indent + key + ": " + scalar(v.text), v.why})
	}
	const most = 48
	column := 0
	for _, r := range rows {
		if n := utf8.RuneCountInString(r[0]); r[1] != "" && n <= most {
			column = max(column, n)
		}
	}
	for _, r := range rows {
		b.WriteString(r[0])
		if r[1] != "" {
			b.WriteString(strings.Repeat(" ", max(0, column-utf8.RuneCountInString(r[0]))) + "  # " + r[1])
		}
		b.WriteByte('\n')
	}
}

// plain are texts that YAML reads as they are; a list in brackets is one, too.
var plain = pattern(`^(/[A-Za-z0-9/._@+-]*|[A-Za-z0-9][A-Za-z0-9./_+-]*|\[[A-Z0-9+, -]*\])$`)

// scalar writes text as a value of YAML.
func scalar(s string) string {
	if plain().MatchString(s) && !slices.Contains([]string{"null", "Null", "NULL"}, s) {
		return s
	}
	return strconv.Quote(strings.ToValidUTF8(s, "?"))
}
