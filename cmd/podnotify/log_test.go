package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSpansAreReadable(t *testing.T) {
	for _, format := range []string{"text", "json", "auto"} {
		var out bytes.Buffer
		NewLogger(&out, slog.LevelInfo, format).Info("late", slog.Group("of", "timeout", 90*time.Second))
		if !strings.Contains(out.String(), "1m30s") {
			t.Errorf("%s: %s", format, out.Bytes())
		}
	}
}
