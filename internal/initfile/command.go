package initfile

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// command is one command line of a unit (systemd.service(5), "Command lines").
type command struct {
	prefixes string // of @-:+!|
	words    []string
}

// readCommands reads the commands of one ExecStart= or the like. A lone ; stands
// between two of them.
func readCommands(s string) (out []command, ok bool) {
	rest := strings.TrimLeft(s, "@-:+!|")
	c := command{prefixes: s[:len(s)-len(rest)]}
	words, ok := split(rest)
	if !ok {
		return nil, false
	}
	for _, w := range words {
		switch w.raw {
		case ";":
			if len(c.words) > 0 {
				out = append(out, c)
			}
			c = command{}
		case `\;`:
			c.words = append(c.words, ";")
		default:
			c.words = append(c.words, w.text)
		}
	}
	if len(c.words) > 0 {
		out = append(out, c)
	}
	return out, len(out) > 0
}

// word is an item of a command line, with and without its quotes.
type word struct{ text, raw string }

// split parts a command line at white space, follows quotes and C's escapes, and
// keeps an unknown escape as it is. It fails if a quote has no end.
func split(s string) (out []word, ok bool) {
	var b strings.Builder
	start, quote := -1, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		blank := strings.IndexByte(" \t\n\r", c) >= 0
		switch {
		case quote == 0 && blank:
			if start >= 0 {
				out = append(out, word{b.String(), s[start:i]})
			}
			b.Reset()
			start = -1
			continue
		case start < 0:
			start = i
		}
		switch {
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == '\\' && i+1 < len(s):
			text, n := unescape(s[i:])
			b.WriteString(text)
			i += n - 1
		default:
			b.WriteByte(c)
		}
	}
	if start >= 0 {
		out = append(out, word{b.String(), s[start:]})
	}
	return out, quote == 0
}

// unescape reads the escape that s begins with, and returns how long it is.
func unescape(s string) (text string, n int) {
	if i := strings.IndexByte("abfnrtvs\\\"'", s[1]); i >= 0 {
		return "\a\b\f\n\r\t\v \\\"'"[i : i+1], 2
	}
	digits, base := 0, 16
	switch c := s[1]; {
	case c == 'x':
		digits = 2
	case c == 'u':
		digits = 4
	case c == 'U':
		digits = 8
	case '0' <= c && c <= '3':
		digits, base = 3, 8
	}
	begin := 2
	if base == 8 {
		begin = 1
	}
	if digits > 0 && begin+digits <= len(s) {
		if v, err := strconv.ParseUint(s[begin:begin+digits], base, 32); err == nil && v > 0 {
			if digits <= 3 {
				return string([]byte{byte(v)}), begin + digits
			}
			return string(rune(v)), begin + digits
		}
	}
	return s[:2], 2
}

// argv is the program and its arguments. With the prefix @ the second word is
// what the program is to be called.
func (c command) argv() []string {
	if strings.Contains(c.prefixes, "@") && len(c.words) > 1 {
		return append(slices.Clone(c.words[:1]), c.words[2:]...)
	}
	return c.words
}

// shell writes the command for a shell. Where systemd would replace variables,
// which it does itself, a shell is made to do it.
func (c command) shell() string {
	var words []string
	variables := false
	for _, w := range c.argv() {
		text := quote(w)
		if !strings.Contains(c.prefixes, ":") {
			var v bool
			text, v = quoteVariables(w)
			variables = variables || v
		}
		words = append(words, text)
	}
	line := strings.Join(words, " ")
	if variables {
		return "sh -c " + quote("exec "+line)
	}
	return line
}

var (
	bare     = pattern(`^\$[A-Za-z_][A-Za-z0-9_]*$`)
	embraced = pattern(`\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*\}`)
	safe     = pattern(`^[A-Za-z0-9_@%+=:,./-]+$`)
)

// pattern is compiled when it is first asked for: a podnotify that serves never does, and
// would start later and hold it all its life.
func pattern(s string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(s) })
}

// quote writes a word for a shell.
func quote(s string) string {
	if safe().MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// quoteVariables writes a word for a shell that is to replace what systemd would:
// $NAME where it is a whole word, split at blanks, and ${NAME} anywhere, as one.
func quoteVariables(w string) (text string, variables bool) {
	if bare().MatchString(w) {
		return w, true
	}
	literal := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`)
	var b, without strings.Builder
	from := 0
	for _, at := range append(embraced().FindAllStringIndex(w, -1), []int{len(w), len(w)}) {
		b.WriteString(literal.Replace(w[from:at[0]]))
		without.WriteString(w[from:at[0]])
		switch v := w[at[0]:at[1]]; {
		case v == "$$":
			b.WriteString(`\$`)
			without.WriteString("$")
		case v != "":
			b.WriteString(v)
			variables = true
		}
		from = at[1]
	}
	if !variables {
		return quote(without.String()), false
	}
	return `"` + b.String() + `"`, true
}

// variables lists the variables that systemd would replace in the command.
func (c command) variables() (out []string) {
	if strings.Contains(c.prefixes, ":") {
		return nil
	}
	for _, w := range c.argv()[1:] { // not in the place of the program
		if bare().MatchString(w) {
			out = append(out, w[1:])
			continue
		}
		for _, v := range embraced().FindAllString(w, -1) {
			if v != "$$" {
				out = append(out, v[2:len(v)-1])
			}
		}
	}
	return out
}

// killed returns the signal that a command sends to the main process, if it does
// no more than that: kill -HUP $MAINPID in its many spellings, also by a shell.
func (c command) killed() (name string, ok bool) {
	words := c.words
	if len(words) == 3 && words[1] == "-c" && slices.Contains([]string{"sh", "bash", "dash"}, filepath.Base(words[0])) {
		inner, _ := split(strings.TrimSuffix(strings.TrimSpace(words[2]), ";"))
		words = nil
		for i, w := range inner {
			if i > 0 || w.text != "exec" {
				words = append(words, w.text)
			}
		}
	}
	return killed(words)
}

func killed(w []string) (name string, ok bool) {
	if len(w) < 2 || filepath.Base(w[0]) != "kill" || !slices.Contains([]string{"$MAINPID", "${MAINPID}"}, w[len(w)-1]) {
		return "", false
	}
	options := slices.DeleteFunc(slices.Clone(w[1:len(w)-1]), func(o string) bool { return o == "--" })
	switch {
	case len(options) == 0:
		return "TERM", true
	case len(options) == 2 && slices.Contains([]string{"-s", "--signal", "-n"}, options[0]):
		return signal(options[1])
	case len(options) != 1:
		return "", false
	}
	if long, ok := strings.CutPrefix(options[0], "--signal="); ok {
		return signal(long)
	}
	if short, ok := strings.CutPrefix(options[0], "-"); ok && short != "" && short[0] != '-' {
		if name, ok := signal(short); ok {
			return name, true
		}
		return signal(strings.TrimPrefix(short, "s"))
	}
	return "", false
}
