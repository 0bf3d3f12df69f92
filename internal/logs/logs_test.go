package logs

import (
	"bytes"
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
	for range 3 * linesKept { // returns, though nobody reads
		log.Info("line")
	}
	read := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		read <- string(b)
	}()
	lines.Close()
	w.Close()
	out := <-read
	kept := strings.Count(out, `"msg":"line"`)
	if kept < linesKept || kept > linesKept+2 || !strings.Contains(out, "log lines were dropped") {
		t.Errorf("%d lines kept; %q", kept, out[:min(len(out), 200)])
	}
	log.Info("after the end") // is nobody's business, and no panic
}
