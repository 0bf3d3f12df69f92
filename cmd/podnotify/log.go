package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// NewLogger returns a logger to w in a format of log-format: text, json, or auto,
// which is text on a terminal and json elsewhere.
func NewLogger(w io.Writer, level slog.Level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && isTerminal(w) {
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

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
