package logs

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSpansAreReadable(t *testing.T) {
	for _, format := range []string{"text", "json", "auto"} {
		var out bytes.Buffer
		Logger(&out, slog.LevelInfo, format).Info("late", slog.Group("of", "timeout", 90*time.Second))
		if !strings.Contains(out.String(), "1m30s") {
			t.Errorf("%s: %s", format, out.Bytes())
		}
	}
}

// A log that nobody reads holds nothing up, and says what it dropped.
func TestBlockedLog(t *testing.T) {
	r, w := io.Pipe()
	log, lines := Serving(w, slog.LevelInfo, "json")
	for n := range 3 * linesKept { // returns, though nobody reads
		log.Info("line", "n", n)
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	lines.Close()
	w.Close()
	out := <-read
	last := -1
	for line := range strings.Lines(out) {
		var l struct{ N *int }
		if json.Unmarshal([]byte(line), &l) != nil || l.N == nil { // what was dropped
			continue
		}
		if *l.N <= last {
			t.Fatalf("line %d comes after line %d", *l.N, last)
		}
		last = *l.N
	}
	kept := strings.Count(out, `"msg":"line"`)
	if kept < linesKept || kept > linesKept+2 || !strings.Contains(out, "log lines were dropped") {
		t.Errorf("%d lines kept; %q", kept, out[:min(len(out), 200)])
	}
	log.Info("after the end") // is nobody's business, and no panic
}

// Close leaves nothing unwritten while somebody reads.
func TestCloseWritesAll(t *testing.T) {
	for range 200 {
		var out bytes.Buffer
		log, lines := Serving(&out, slog.LevelInfo, "json")
		for range 20 {
			log.Info("line")
		}
		lines.Close()
		if n := strings.Count(out.String(), `"msg":"line"`); n != 20 {
			t.Fatalf("%d of 20 lines are written", n)
		}
	}
}
