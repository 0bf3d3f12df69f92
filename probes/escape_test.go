package probes

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"Ready to accept connections":   "Ready to accept connections",
		"a\nb\tc\rd":                    `a\nb\tc\rd`,
		"\x1b[31mred\x00\x7f":           `\x1b[31mred\x00\x7f`,
		"caf\xe9":                       `caf\xe9`,
		"\xff\xfe":                      `\xff\xfe`,
		"\xe2\x82":                      `\xe2\x82`,
		"café 東京 \U0001F600":            "café 東京 \U0001F600",
		"\u3000":                        "\u3000",
		"<script>alert('&')</script>":   "&lt;script&gt;alert('&amp;')&lt;/script&gt;",
		`C:\path "quoted"`:              `C:\path "quoted"`,
		"\u202eright to left":           `\u202eright to left`,
		"line\u2028separator\u0085next": `line\u2028separator\u0085next`,
		"\ufffd":                        "\ufffd",
		"\U000e0001":                    `\U000e0001`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "plain", "<\n\xff", "\u202e&"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Escape(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "<>\n\r") || strings.ContainsFunc(got, unicode.IsControl) {
			t.Errorf("Escape(%q) = %q", s, got)
		}
		if v := valid(s); !utf8.ValidString(v) || utf8.ValidString(s) && v != s {
			t.Errorf("valid(%q) = %q", s, v)
		}
	})
}
