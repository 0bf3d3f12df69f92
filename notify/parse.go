package notify

import (
	"bytes"
	"errors"
	"iter"
	"math"
	"strconv"
)

// MaxDatagram is the longest datagram, in bytes, that a receiver reads: PIPE_BUF,
// as in systemd. A longer one is dropped whole, never cut.
const MaxDatagram = 4096

// MaxFDs is how many descriptors the kernel lets one datagram carry (SCM_MAX_FD).
const MaxFDs = 253

// Reasons for which a datagram is no message. Such a datagram is dropped whole.
var (
	ErrTooLong = errors.New("datagram is longer than 4096 bytes")
	ErrNUL     = errors.New("datagram has a NUL byte before its end")
)

// A Flag is a line that is compared as a whole: READY=1 is one, READY=0 is nothing.
type Flag uint16

// The flag lines of systemd, up to version 261.
const (
	FlagReady         Flag = 1 << iota // READY=1: start or reload finished
	FlagReloading                      // RELOADING=1: a reload begins; see KeyMonotonicUsec
	FlagStopping                       // STOPPING=1: the service goes down
	FlagMainPIDFD                      // MAINPIDFD=1: the one attached pidfd is the main process (257)
	FlagRestartReset                   // RESTART_RESET=1: forget how often the service was restarted (258)
	FlagFDStore                        // FDSTORE=1: keep the attached descriptors; see KeyFDName (219)
	FlagFDStoreRemove                  // FDSTOREREMOVE=1: close what is kept under KeyFDName (236)
	FlagFDPollOff                      // FDPOLL=0: do not drop the stored descriptor when it hangs up (246)
	FlagBarrier                        // BARRIER=1: close the attached descriptor after all earlier datagrams (246)
)

// A Key names a line that carries a value.
type Key uint8

// The value lines of systemd, up to version 261.
const (
	KeyMainPID           Key = iota // MAINPID: see [ParsePID]; counted in the sender's PID namespace
	KeyMainPIDFDID                  // MAINPIDFDID: inode number of MAINPID's pidfd, see [ParseUint] (257)
	KeyStatus                       // STATUS: one line for people; any bytes, not always UTF-8
	KeyNotifyAccess                 // NOTIFYACCESS: none, main, exec or all (254)
	KeyErrno                        // ERRNO: see [ParseErrno]
	KeyBusError                     // BUSERROR: a D-Bus error name
	KeyVarlinkError                 // VARLINKERROR: a Varlink error name (257)
	KeyExitStatus                   // EXIT_STATUS: 0 to 255, sent by managers to their own supervisor (254)
	KeyMonotonicUsec                // MONOTONIC_USEC: CLOCK_MONOTONIC in microseconds, goes with RELOADING=1 (253)
	KeyExtendTimeoutUsec            // EXTEND_TIMEOUT_USEC: microseconds from now (236)
	KeyWatchdog                     // WATCHDOG: "1" is a sign of life, "trigger" asks to be failed (243)
	KeyWatchdogUsec                 // WATCHDOG_USEC: new watchdog interval in microseconds
	KeyFDName                       // FDNAME: name of the descriptors to keep or to close (233)

	numKeys
)

var keyNames = [numKeys]string{
	KeyMainPID:           "MAINPID",
	KeyMainPIDFDID:       "MAINPIDFDID",
	KeyStatus:            "STATUS",
	KeyNotifyAccess:      "NOTIFYACCESS",
	KeyErrno:             "ERRNO",
	KeyBusError:          "BUSERROR",
	KeyVarlinkError:      "VARLINKERROR",
	KeyExitStatus:        "EXIT_STATUS",
	KeyMonotonicUsec:     "MONOTONIC_USEC",
	KeyExtendTimeoutUsec: "EXTEND_TIMEOUT_USEC",
	KeyWatchdog:          "WATCHDOG",
	KeyWatchdogUsec:      "WATCHDOG_USEC",
	KeyFDName:            "FDNAME",
}

// String returns the key as it is spelled on the wire.
func (k Key) String() string {
	if k < numKeys {
		return keyNames[k]
	}
	return "Key(" + strconv.Itoa(int(k)) + ")"
}

// A Message is one parsed datagram. Its zero value is the empty message.
//
// A Message points into the bytes it was parsed from: whoever overwrites those
// changes it. It says what was written, not what it means.
type Message struct {
	// Flags has a bit for every flag line present.
	Flags Flag

	set     uint16 // bit k: span[k] is valid
	lines   int
	unknown int
	span    [numKeys]struct{ from, to uint16 } // offsets into buf, which is at most MaxDatagram long
	buf     []byte
}

// Parse replaces m by what the datagram b says. It keeps b and allocates nothing.
//
// Lines end at \n or \r; empty lines are skipped, nothing is trimmed, and the last
// line needs no end. A flag line counts wherever it stands; of several value lines
// with one key the first counts. Backslashes are ordinary bytes: systemd up to at
// least version 259 strips them by accident of its line splitter, which is not copied.
//
// One NUL at the very end is tolerated, since C programs send it by mistake. The error
// is [ErrNUL] for any other and [ErrTooLong] for more than [MaxDatagram] bytes; m is
// then empty. No bytes at all are an empty message and no error.
func (m *Message) Parse(b []byte) error {
	m.Flags, m.set, m.lines, m.unknown, m.buf = 0, 0, 0, 0, nil
	if len(b) > MaxDatagram {
		return ErrTooLong
	}
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return ErrNUL
	}
	m.buf = b
	for from := 0; from < len(b); {
		to := lineEnd(b, from)
		if to > from {
			m.line(from, to)
		}
		from = to + 1
	}
	return nil
}

// lineEnd returns the offset of the first separator at or after from, or len(b).
func lineEnd(b []byte, from int) int {
	for i, c := range b[from:] {
		if c == '\n' || c == '\r' {
			return from + i
		}
	}
	return len(b)
}

// line takes in the line b[from:to], which is not empty.
func (m *Message) line(from, to int) {
	m.lines++
	line := m.buf[from:to]
	eq := bytes.IndexByte(line, '=')
	if eq < 0 {
		m.unknown++
		return
	}
	flag, key := lookup(line[:eq])
	switch {
	case flag != 0:
		// Only one value of each flag means anything; the others are known and mean nothing.
		want := byte('1')
		if flag == FlagFDPollOff {
			want = '0'
		}
		if len(line) == eq+2 && line[eq+1] == want {
			m.Flags |= flag
		}
	case key == numKeys:
		m.unknown++
	case m.set&(1<<key) == 0:
		m.set |= 1 << key
		m.span[key].from, m.span[key].to = uint16(from+eq+1), uint16(to)
	}
}

// lookup tells what a line with this name is: a flag, else a key below numKeys,
// else (0, numKeys) for an unknown name.
func lookup(name []byte) (Flag, Key) {
	switch string(name) { // compiled to a search by length and content, no allocation
	case "READY":
		return FlagReady, numKeys
	case "RELOADING":
		return FlagReloading, numKeys
	case "STOPPING":
		return FlagStopping, numKeys
	case "MAINPIDFD":
		return FlagMainPIDFD, numKeys
	case "RESTART_RESET":
		return FlagRestartReset, numKeys
	case "FDSTORE":
		return FlagFDStore, numKeys
	case "FDSTOREREMOVE":
		return FlagFDStoreRemove, numKeys
	case "FDPOLL":
		return FlagFDPollOff, numKeys
	case "BARRIER":
		return FlagBarrier, numKeys
	case "MAINPID":
		return 0, KeyMainPID
	case "MAINPIDFDID":
		return 0, KeyMainPIDFDID
	case "STATUS":
		return 0, KeyStatus
	case "NOTIFYACCESS":
		return 0, KeyNotifyAccess
	case "ERRNO":
		return 0, KeyErrno
	case "BUSERROR":
		return 0, KeyBusError
	case "VARLINKERROR":
		return 0, KeyVarlinkError
	case "EXIT_STATUS":
		return 0, KeyExitStatus
	case "MONOTONIC_USEC":
		return 0, KeyMonotonicUsec
	case "EXTEND_TIMEOUT_USEC":
		return 0, KeyExtendTimeoutUsec
	case "WATCHDOG":
		return 0, KeyWatchdog
	case "WATCHDOG_USEC":
		return 0, KeyWatchdogUsec
	case "FDNAME":
		return 0, KeyFDName
	}
	return 0, numKeys
}

// Has reports whether every flag line in f is present.
func (m *Message) Has(f Flag) bool { return m.Flags&f == f }

// Value returns what follows KEY= in the first line with that key, and whether there
// is one. The bytes are the sender's, verbatim, and part of the parsed datagram.
func (m *Message) Value(k Key) ([]byte, bool) {
	if k >= numKeys || m.set&(1<<k) == 0 {
		return nil, false
	}
	s := m.span[k]
	return m.buf[s.from:s.to:s.to], true
}

// Unknown returns how many lines are neither flag nor value lines of this package.
// READY=0 is known, though it means nothing.
func (m *Message) Unknown() int { return m.unknown }

// UnknownKeys returns the names of the unknown lines in order, repeated ones too:
// what stands before the first =, or the whole line if it has none. The bytes are
// part of the parsed datagram.
func (m *Message) UnknownKeys() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if m.unknown == 0 {
			return
		}
		for from := 0; from < len(m.buf); {
			to := lineEnd(m.buf, from)
			line := m.buf[from:to]
			name, _, found := bytes.Cut(line, []byte{'='})
			flag, key := lookup(name)
			known := found && (flag != 0 || key != numKeys)
			if len(line) > 0 && !known && !yield(name[:len(name):len(name)]) {
				return
			}
			from = to + 1
		}
	}
}

// BarrierOnly reports whether BARRIER=1 is the message's only line. systemd ignores
// all the lines of a message that says BARRIER=1 beside something else.
func (m *Message) BarrierOnly() bool { return m.lines == 1 && m.Has(FlagBarrier) }

// ParseUint reads an unsigned number as systemd's safe_atou64 does: white space and
// one + may lead; 0x, 0b, 0o and a plain leading 0 set the base to 16, 2, 8 and 8; no
// other byte may stand before, between or after the digits. The error is
// [strconv.ErrSyntax] or [strconv.ErrRange]. It allocates nothing.
func ParseUint(b []byte) (uint64, error) {
	b = bytes.TrimLeft(b, " \t\n\v\f\r")
	base := uint64(10)
	switch {
	case hasPrefix(b, 'b'):
		b, base = b[2:], 2
	case hasPrefix(b, 'o'):
		b, base = b[2:], 8
	default: // strtoull(3) takes it from here; it knows neither 0b nor 0o, so no + goes before those
		if len(b) > 0 && b[0] == '+' {
			b = b[1:]
		}
		switch {
		case hasPrefix(b, 'x'):
			b, base = b[2:], 16
		case len(b) > 1 && b[0] == '0':
			b, base = b[1:], 8
		}
	}
	if len(b) == 0 {
		return 0, strconv.ErrSyntax
	}
	n, over := uint64(0), false
	for _, c := range b {
		d := digit(c)
		if d >= base {
			return 0, strconv.ErrSyntax
		}
		if n > (math.MaxUint64-d)/base {
			over = true
		}
		n = n*base + d
	}
	if over {
		return 0, strconv.ErrRange
	}
	return n, nil
}

// hasPrefix reports whether b starts with 0 and the letter, which is lower case, in either case.
func hasPrefix(b []byte, letter byte) bool {
	return len(b) >= 2 && b[0] == '0' && b[1]|0x20 == letter
}

// digit returns the value of c as a digit of base 16 or less, or 16 if it is none.
func digit(c byte) uint64 {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10
	}
	return 16
}

// ParsePID reads a process number as systemd's parse_pid does: like [ParseUint], and
// between 1 and the largest pid_t. The error is [strconv.ErrSyntax] or
// [strconv.ErrRange]. It allocates nothing.
func ParsePID(b []byte) (int, error) {
	n, err := ParseUint(b)
	if err != nil {
		return 0, err
	}
	if n == 0 || n > math.MaxInt32 {
		return 0, strconv.ErrRange
	}
	return int(n), nil
}
