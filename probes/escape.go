package probes

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Escape makes text from a daemon safe to show on one line of a terminal, a log
// or a web page. Control and other invisible characters become \n, \t, \r, \xNN
// or \uNNNN, each byte that is not UTF-8 becomes \xNN, and the characters that
// mean something in HTML become &lt; &gt; &amp;. Backslashes are kept as they
// are, because the protocol keeps them: the text is for reading, not for
// decoding. Text that needs nothing is returned as it is.
func Escape(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			return escape(s, i)
		}
	}
	return s
}

func escape(s string, from int) string {
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:from])
	for i := from; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case strconv.IsGraphic(r):
			b.WriteString(s[i : i+size])
		case r <= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

// valid makes a text fit for JSON: each byte that is not UTF-8 becomes \xNN,
// where encoding/json would put U+FFFD and say nothing. Control characters and
// HTML are encoding/json's to escape.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}
