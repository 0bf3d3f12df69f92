// Package logs makes the logger of a program that serves: in the form that a person or
// a collector reads, and such that nobody who reads it, or has stopped reading it,
// holds anything up.
package logs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Logger returns a logger to w in a format of log-format: text, json, or auto,
// which is text on a terminal and json elsewhere.
func Logger(w io.Writer, level slog.Level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	o.ReplaceAttr = readable
	return slog.New(slog.NewJSONHandler(w, o))
}

// readable writes a time span as text does: 1m30s, not nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Serving is Logger for a podnotify that serves: whoever reads the log, or
// has stopped reading it, holds nothing up. Close writes what is left.
func Serving(w io.Writer, level slog.Level, format string) (*slog.Logger, *Lines) {
	if format == "auto" && IsTerminal(w) {
		format = "text"
	}
	l := newLines(w)
	return Logger(l, level, format), l
}

const (
	linesKept = 1024        // that wait to be written; what is more is dropped
	lastWord  = time.Second // for writing what is left at the end
)

// Lines writes to a writer that may block, in the background.
type Lines struct {
	w    io.Writer
	mu   sync.Mutex
	wait [][]byte // nothing is held for lines that there are not
	lost int
	more chan struct{} // never closed: a timer may still have something to say
	end  chan struct{}
	done chan struct{}
}

func newLines(w io.Writer) *Lines {
	l := &Lines{w: w, more: make(chan struct{}, 1), end: make(chan struct{}), done: make(chan struct{})}
	go l.write()
	return l
}

func (l *Lines) write() {
	defer close(l.done)
	for ended := false; ; {
		line, lost := l.next()
		if lost > 0 {
			fmt.Fprintf(l.w, "podnotify: %d log lines were dropped: nobody read them\n", lost)
		}
		if line != nil {
			_, _ = l.w.Write(line) // there is nobody else to tell
			continue
		}
		if ended {
			return
		}
		select {
		case <-l.more:
		case <-l.end:
			ended = true
		}
	}
}

// next is the line that has waited longest, nil if none has, and how many were lost since.
func (l *Lines) next() (line []byte, lost int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, l.lost = l.lost, 0
	if len(l.wait) == 0 {
		l.wait = nil
		return nil, lost
	}
	line, l.wait[0] = l.wait[0], nil
	l.wait = l.wait[1:]
	return line, lost
}

// Write implements io.Writer. It never waits for the reader and never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	if len(l.wait) < linesKept {
		l.wait = append(l.wait, bytes.Clone(p))
	} else {
		l.lost++
	}
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// Close gives the reader a moment to take what is left.
func (l *Lines) Close() {
	close(l.end)
	select {
	case <-l.done:
	case <-time.After(lastWord):
	}
}

// IsTerminal reports whether a person reads w.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
