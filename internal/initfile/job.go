package initfile

import (
	"fmt"
	"slices"
	"strings"
)

// stanza is one statement of an upstart job (init(5) of upstart).
type stanza struct {
	words []string // without quotes
	text  string   // as it stands there, on one line
	at    lines
	done  bool // somewhere on the page
}

func (s *stanza) arg(i int) string {
	if i < len(s.words) {
		return s.words[i]
	}
	return ""
}

// is reports whether a stanza begins with some words.
func (s *stanza) is(words ...string) bool {
	return len(s.words) >= len(words) && slices.Equal(s.words[:len(words)], words)
}

// rest is the text behind the first n words.
func (s *stanza) rest(n int) string {
	text := s.text
	for range n {
		text = strings.TrimLeft(text, " \t")
		text = text[min(len(text), len(text)-len(strings.TrimLeft(text, notBlank))):]
	}
	return strings.TrimSpace(text)
}

// notBlank are the bytes of the words that stanzas begin with.
const notBlank = "abcdefghijklmnopqrstuvwxyz-"

var endScript = pattern(`^[ \t]*end[ \t]+script[ \t]*(#.*)?$`)

// readJob reads the stanzas of a job. A line ends a stanza, but for one within
// quotes, behind a backslash, within the parentheses of start on and stop on,
// and between script and end script.
func readJob(text string) (out []*stanza, err error) {
	r := jobReader{text: text, line: 1}
	for {
		s, err := r.stanza()
		if s == nil || err != nil {
			return out, err
		}
		if n := len(s.words); s.is("script") && n == 1 || n == 2 && s.words[1] == "script" && strings.HasPrefix(s.words[0], "p") {
			if err := r.block(s); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
}

type jobReader struct {
	text string
	at   int
	line int
}

// stanza reads up to the end of a stanza's line; nil is the end of the job.
func (r *jobReader) stanza() (*stanza, error) {
	var s stanza
	var text, word strings.Builder
	var quote byte
	begun, depth := false, 0
	finish := func() {
		if begun {
			s.words = append(s.words, word.String())
		}
		word.Reset()
		begun = false
	}
	for ; r.at < len(r.text); r.at++ {
		c := r.text[r.at]
		next := byte(0)
		if r.at+1 < len(r.text) {
			next = r.text[r.at+1]
		}
		switch {
		case c == '\\' && next == '\n': // as a blank
			finish()
			text.WriteByte(' ')
			r.at++
			r.line++
			continue
		case c == '#' && quote == 0:
			for r.at+1 < len(r.text) && r.text[r.at+1] != '\n' {
				r.at++
			}
			continue
		case c == '\n' && quote == 0:
			finish()
			r.line++
			if depth > 0 && len(s.words) > 0 {
				text.WriteByte(' ')
				continue
			}
			if len(s.words) > 0 {
				r.at++
				s.text, s.at.last = strings.TrimSpace(text.String()), r.line-1
				return &s, nil
			}
			continue
		case quote == 0 && (c == ' ' || c == '\t' || c == '\r'):
			finish()
			text.WriteByte(c)
			continue
		}
		if s.at.first == 0 {
			s.at.first = r.line
		}
		begun = true
		switch {
		case c == '\n': // within quotes
			r.line++
			word.WriteByte(' ')
			text.WriteByte(' ')
			continue
		case c == '\\' && next != 0:
			word.WriteByte(next)
			text.WriteString(r.text[r.at : r.at+2])
			r.at++
			continue
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		default:
			word.WriteByte(c)
			if quote == 0 && len(s.words) > 1 && s.words[1] == "on" {
				depth += strings.Count(string(c), "(") - strings.Count(string(c), ")")
			}
		}
		text.WriteByte(c)
	}
	finish()
	switch {
	case quote != 0:
		return nil, fmt.Errorf("line %d: a quote is never closed", s.at.first)
	case depth > 0:
		return nil, fmt.Errorf("line %d: a parenthesis is never closed", s.at.first)
	case len(s.words) == 0:
		return nil, nil
	}
	s.text, s.at.last = strings.TrimSpace(text.String()), r.line
	return &s, nil
}

// block reads a script up to its end script.
func (r *jobReader) block(s *stanza) error {
	for r.at < len(r.text) {
		l, _, _ := strings.Cut(r.text[r.at:], "\n")
		r.at = min(len(r.text), r.at+len(l)+1)
		r.line++
		if endScript().MatchString(strings.TrimSuffix(l, "\r")) {
			s.text += " ... end script"
			s.at.last = r.line - 1
			return nil
		}
	}
	return fmt.Errorf("line %d: the script has no line \"end script\"", s.at.first)
}
