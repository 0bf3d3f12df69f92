package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Every value is text until one of these has read it, wherever it came from: so
// a file, a variable and a flag are judged by the same words, and a mode or a
// version number is never changed by YAML's idea of a number.

// maxAddress is the room for an address in sockaddr_un: 108 bytes, one of which
// is the NUL that ends a path or starts an abstract name.
const maxAddress = 107

// maxName is the length of a DNS label, which the names of containers have too.
const maxName = 63

// nameBytes are those of a DNS label, which neither begins nor ends with the hyphen.
const nameBytes = "abcdefghijklmnopqrstuvwxyz0123456789-"

// takenNames are in every run-dir, which has a directory for each service, too: see
// internal/rundir. A daemon whose service had one of them could read what
// podnotify keeps, or there would be no place for its socket.
var takenNames = []string{"control", "lock", "state"}

func readName(s string) (string, *fault) {
	const cure = "use lower-case letters, digits and inner hyphens, 63 at most"
	switch {
	case s == "":
		return "", &fault{"is missing", "give the service a name in the file, by --service or by PODNOTIFY_SERVICE"}
	case len(s) > maxName:
		return "", &fault{"has " + strconv.Itoa(len(s)) + " characters", cure}
	case strings.Trim(s, nameBytes) != "" || strings.Trim(s, "-") != s:
		return "", &fault{"is no name", cure}
	case slices.Contains(takenNames, s):
		return "", &fault{"is what podnotify calls a file of its own in the run-dir, beside the directories of the services", "choose another, such as " + s + "-daemon"}
	}
	return s, nil
}

// nameOf makes a service's name of a command: its base name, made valid. It is
// "" if nothing valid is left.
func nameOf(command string) string { return ValidName(filepath.Base(command)) }

// ValidName is the valid name of a service that is nearest to s, or "" if s has
// nothing for one.
func ValidName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + ('a' - 'A')
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, s)
	name = strings.Trim(name, "-")
	if slices.Contains(takenNames, name) {
		name += "-daemon"
	}
	return strings.TrimRight(name[:min(len(name), maxName)], "-")
}

func readDuration(s string) (time.Duration, *fault) {
	if s == "" {
		return 0, &fault{"is empty", "write 0 for none"}
	}
	d, err := time.ParseDuration(s)
	switch {
	case err == nil && d < 0:
		return 0, &fault{"is negative", "write 0 for none"}
	case err == nil:
		return d, nil
	}
	if _, e := strconv.ParseUint(s, 10, 63); e == nil {
		return 0, &fault{"has no unit", "write " + s + "s"}
	}
	if s == "infinity" {
		return 0, &fault{"is no duration", "write 0 for none"}
	}
	return 0, &fault{"is no duration", "write it like 100ms, 90s or 1h30m"}
}

func readCount(s string) (int, *fault) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, &fault{"is no whole number from 0 on", ""}
	}
	return int(n), nil
}

func readMode(s string) (fs.FileMode, *fault) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return 0, &fault{"is no mode", "write it in octal, like 0666 or 0660"}
	}
	return fs.FileMode(n), nil
}

// readSignal accepts TERM, SIGTERM, 15 and, with the numbers of glibc, RTMIN+3.
// An empty text is no signal, 0.
func readSignal(s string) (unix.Signal, *fault) {
	if s == "" {
		return 0, nil
	}
	bad := &fault{"is no signal", "write a name like TERM or a number from 1 to 64"}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		if n < 1 || n > maxSignal {
			return 0, bad
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	base, step := firstRealtime, 1
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		base, step, name = maxSignal, -1, "RTMIN"+strings.Replace(rest, "-", "+", 1)
		if strings.HasPrefix(rest, "+") {
			return 0, bad
		}
	}
	rest, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		return 0, bad
	}
	n := uint64(0)
	if rest != "" {
		var err error
		if n, err = strconv.ParseUint(strings.TrimPrefix(rest, "+"), 10, 8); err != nil || rest[0] != '+' {
			return 0, bad
		}
	}
	if n > maxSignal-firstRealtime {
		return 0, bad
	}
	return unix.Signal(base + step*int(n)), nil
}

const (
	firstRealtime = 34 // SIGRTMIN of glibc, which systemd's units mean; musl has 35
	maxSignal     = 64
)

// readExits reads exit codes and names of signals: 0, 143, TERM.
func readExits(s string) ([]lifecycle.Exit, *fault) {
	var out []lifecycle.Exit
	for _, item := range strings.Split(s, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		if n, err := strconv.ParseUint(item, 10, 8); err == nil {
			out = append(out, lifecycle.Exit{Known: true, Code: int(n)})
			continue
		}
		sig, bad := readSignal(item)
		if bad != nil || sig == 0 {
			return nil, &fault{strconv.Quote(item) + " is neither an exit code nor a signal", "write codes from 0 to 255 and names like TERM"}
		}
		out = append(out, lifecycle.Exit{Known: true, Signal: int(sig)})
	}
	return out, nil
}

func readRegexp(s string) (*regexp.Regexp, *fault) {
	if s == "" {
		return nil, nil
	}
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, &fault{"is no regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), "see https://pkg.go.dev/regexp/syntax"}
	}
	return re, nil
}

// readAddress reads the address of a notify socket; empty is the default one.
func readAddress(s string) (string, *fault) {
	switch {
	case s == "":
		return "", nil
	case s[0] != '/' && s[0] != '@':
		return "", &fault{"is neither an absolute path nor an abstract name", "start it with / or @"}
	case len(s) == 1:
		return "", &fault{"has no name", "write a name behind the " + s}
	case strings.IndexByte(s, 0) >= 0:
		return "", &fault{"contains a NUL byte", ""}
	case s[0] == '@' && len(s)-1 > maxAddress:
		return "", &fault{"has " + strconv.Itoa(len(s)-1) + " bytes behind the @, the kernel allows 107", "choose a shorter name"}
	case s[0] == '/' && len(s) > maxAddress:
		return "", &fault{"has " + strconv.Itoa(len(s)) + " bytes, the kernel allows 107", "choose a shorter path"}
	}
	return s, nil
}

// readTCP reads host:port. The host may be empty.
func readTCP(s string) (string, *fault) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		switch {
		case s == "":
			return "", &fault{"is empty", "write [HOST]:PORT"}
		case strings.Count(s, ":") > 1:
			return "", &fault{"is not [HOST]:PORT", "put an IPv6 address into brackets, like [::1]:19119"}
		case strings.Contains(s, ":"):
			return "", &fault{"is not [HOST]:PORT", ""}
		}
		if _, e := strconv.ParseUint(s, 10, 16); e == nil {
			return "", &fault{"has no colon before its port", "write :" + s}
		}
		return "", &fault{"has no port", "write " + s + ":PORT"}
	}
	switch n, err := strconv.ParseUint(port, 10, 64); {
	case port == "":
		return "", &fault{"has no port", "write " + net.JoinHostPort(host, "PORT")}
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return "", &fault{"port is no number", ""}
	case err != nil || n > 65535:
		return "", &fault{"port is out of range", "choose one up to 65535"}
	}
	return s, nil
}

// readPeer reads host:port of somebody who accepts. Without a host it is this one.
func readPeer(s string) (string, *fault) {
	s, bad := readTCP(s)
	if bad == nil && strings.TrimLeft(s[strings.LastIndexByte(s, ':')+1:], "0") == "" {
		return "", &fault{"nobody accepts on port 0", "write the port of the daemon"}
	}
	return s, bad
}

func readPath(s string) (string, *fault) {
	switch {
	case strings.IndexByte(s, 0) >= 0:
		return "", &fault{"contains a NUL byte", ""}
	case s != "" && s[0] != '/':
		return "", &fault{"is no absolute path", "start it with /"}
	}
	return s, nil
}

// readWord reads text that becomes part of an environment or names something:
// anything printable.
func readWord(s string) (string, *fault) {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return "", &fault{"contains a character that cannot be printed", ""}
		}
	}
	return s, nil
}

func readLevel(s string) (slog.Level, *fault) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, oneOf("debug", "info", "warn", "error")
}

// oneOf is the fault of a word that is none of some.
func oneOf(words ...string) *fault {
	last := len(words) - 1
	return &fault{"is not known here", "write " + strings.Join(words[:last], ", ") + " or " + words[last]}
}

// Signal reads a signal as the configuration does: TERM, SIGTERM, 15, RTMIN+1.
func Signal(s string) (unix.Signal, error) {
	sig, bad := required(readSignal)(s)
	if bad != nil {
		return 0, fmt.Errorf("cannot use signal %q: it %s; %s", s, bad.reason, bad.cure)
	}
	return sig, nil
}
