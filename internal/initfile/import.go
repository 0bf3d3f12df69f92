// Package initfile translates the files of other init systems, systemd's units
// and upstart's jobs, into podnotify's configuration. It turns text into text:
// it reads nothing that a file names, and starts nothing.
package initfile

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/podnotify/podnotify/internal/config"
)

// Result is a translated file.
type Result struct {
	// YAML is a configuration that config.Load accepts. Its comments name every
	// line of the file that is neither blank nor a comment itself: what it has
	// become, or why it has become nothing.
	YAML []byte
	// Warnings are what will behave differently from what the file says, or
	// could not be understood, one line each. They are comments of YAML, too.
	Warnings []string
	// Dropped counts the lines without a counterpart.
	Dropped int
}

// maxFile is more than any unit: systemd itself refuses lines longer than this.
const maxFile = 1 << 20

// Import translates the text of a systemd unit (NAME.service) or an upstart job
// (NAME.conf) for one way of running podnotify. The service gets its name from
// path, which is not opened. The error names the line, where there is one; what
// the init system itself would only warn of is a warning here, too.
func Import(path string, text []byte, mode config.Mode) (Result, error) {
	p := &page{source: filepath.Base(path), mode: mode}
	if err := p.read(path, text); err != nil {
		return Result{}, fmt.Errorf("cannot import %s: %w", printable(path), err)
	}
	r := Result{YAML: p.yaml(), Dropped: p.lost}
	for _, w := range p.warnings {
		r.Warnings = append(r.Warnings, w.text)
	}
	return r, nil
}

func (p *page) read(path string, text []byte) error {
	switch {
	case len(text) > maxFile:
		return errors.New("it is larger than 1 MiB")
	case bytes.IndexByte(text, 0) >= 0:
		return errors.New("it contains a NUL byte, so it is no text")
	}
	s := strings.ReplaceAll(strings.TrimPrefix(string(text), "\ufeff"), "\r\n", "\n")
	switch filepath.Ext(path) {
	case ".service":
		return p.service(path, s)
	case ".conf":
		return p.job(path, s)
	}
	return errors.New("only systemd units (NAME.service) and upstart jobs (NAME.conf) can be imported")
}

// setName gives the service the name that is nearest to what the other init
// system calls it.
func (p *page) setName(name string) {
	p.name = config.ValidName(name)
	if p.name == "" {
		p.name = "daemon"
		p.warn("the name of the file has nothing for the name of a service, so it is daemon")
	}
}

// printable is text on one line of a comment, cut where it gets too long.
func printable(s string) string {
	const most = 160
	s = clean(s)
	if len(s) <= most {
		return s
	}
	end := most
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + " ..."
}

// clean is text on one line of a comment. What YAML does not allow, or takes for
// the end of a line, becomes a question mark.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case r == utf8.RuneError, r < ' ', 0x7f <= r && r < 0xa0, r == '\u2028', r == '\u2029', r == '\ufeff', r == '\ufffe', r == '\uffff':
			return '?'
		}
		return r
	}, s)
}
