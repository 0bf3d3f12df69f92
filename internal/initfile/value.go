package initfile

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/podnotify/podnotify/internal/config"
)

// readSpan reads a time span of systemd (systemd.time(7)): "1min 30s", "2h",
// "0.5", where a bare number is seconds. infinity is true for what has no end, and for
// what is longer than a time.Duration can be, which is 292 years.
func readSpan(s string) (d time.Duration, infinity, ok bool) {
	const blank = " \t"
	s = strings.Trim(s, blank)
	if s == "infinity" {
		return 0, true, true
	}
	if s == "" {
		return 0, false, false
	}
	total := 0.0 // microseconds: exact far beyond the longest time-out
	for s != "" {
		n := len(s) - len(strings.TrimLeft(s, "0123456789."))
		number, err := strconv.ParseFloat(s[:n], 64)
		if n == 0 || err != nil {
			return 0, false, false
		}
		s = strings.TrimLeft(s[n:], blank)
		n = strings.IndexAny(s, "0123456789."+blank)
		if n < 0 {
			n = len(s)
		}
		unit, known := units[s[:n]]
		if !known {
			return 0, false, false
		}
		total += number * float64(unit/time.Microsecond)
		s = strings.TrimLeft(s[n:], blank)
	}
	if total >= math.MaxInt64/1000 {
		return 0, true, true
	}
	return time.Duration(math.Round(total)) * time.Microsecond, false, true
}

var units = map[string]time.Duration{
	"":   time.Second,
	"us": time.Microsecond, "usec": time.Microsecond, "µs": time.Microsecond, "μs": time.Microsecond,
	"ms": time.Millisecond, "msec": time.Millisecond,
	"s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": day, "day": day, "days": day,
	"w": 7 * day, "week": 7 * day, "weeks": 7 * day,
	"M": month, "month": month, "months": month,
	"y": year, "year": year, "years": year,
}

const (
	day   = 24 * time.Hour
	month = 2629800 * time.Second  // 30.4375 days
	year  = 31557600 * time.Second // 365.25 days
)

// duration writes a time span as podnotify reads it: 90s, 15m0s.
func duration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// timeout reads a time-out of systemd, where 0 and infinity are none.
func timeout(s string) (string, bool) {
	d, infinity, ok := readSpan(s)
	switch {
	case !ok:
		return "", false
	case infinity:
		return "0s", true
	}
	return duration(d), true
}

// pause reads a span that is waited for: it must have an end.
func pause(s string) (time.Duration, bool) {
	d, infinity, ok := readSpan(s)
	return d, ok && !infinity
}

// signal reads a signal and writes it without SIG.
func signal(s string) (string, bool) {
	if _, err := config.Signal(s); err != nil {
		return "", false
	}
	return strings.TrimPrefix(strings.ToUpper(s), "SIG"), true
}

func count(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err == nil
}

// oneOf reads one of some words.
func oneOf(words ...string) func(string) (string, bool) {
	return func(s string) (string, bool) {
		for _, w := range words {
			if s == w {
				return s, true
			}
		}
		return "", false
	}
}

// exitStatus reads an item of SuccessExitStatus= and the like: a code, the name
// of a code (systemd.exec(5), "Process Exit Codes") or a signal. Codes from 200
// on are systemd's own, before it runs the daemon, and have no name here.
func exitStatus(s string) (string, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return strconv.FormatUint(n, 10), true
	}
	if n, ok := exitNames[s]; ok {
		return strconv.Itoa(n), true
	}
	if s == "" || '0' <= s[0] && s[0] <= '9' {
		return "", false
	}
	return signal(s)
}

// The codes of libc, LSB and BSD's sysexits.h.
var exitNames = map[string]int{
	"SUCCESS": 0, "FAILURE": 1,
	"INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5, "NOTCONFIGURED": 6, "NOTRUNNING": 7,
	"USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68, "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71,
	"OSFILE": 72, "CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75, "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78,
}
