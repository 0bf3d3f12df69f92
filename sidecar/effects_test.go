package sidecar

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// TestLogLinesBounded: what a daemon can make podnotify say is bounded, and some of it
// is kept for what people must know.
func TestLogLinesBounded(t *testing.T) {
	var q effects
	now := time.Unix(1, 0)
	many := func(level slog.Level) (n int) {
		for range 10 * linesAtOnce {
			if q.may(level, now) {
				n++
			}
		}
		return n
	}
	if n := many(slog.LevelInfo); n != linesAtOnce/2 {
		t.Errorf("%d lines at once", n)
	}
	if n := many(slog.LevelWarn); n != linesAtOnce/2 {
		t.Errorf("then %d warnings at once", n)
	}
	now = now.Add(10 * lineEvery)
	if n := many(slog.LevelWarn); n != 10 {
		t.Errorf("%d warnings after a while", n)
	}
	now = now.Add(time.Hour)
	if n := many(slog.LevelInfo) + many(slog.LevelWarn); n != linesAtOnce {
		t.Errorf("%d lines after an hour", n)
	}

	log := &logBuffer{}
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	s.now = func() time.Time { return now }
	for range 10 * linesAtOnce {
		s.say(slog.LevelInfo, "daemon is ready")
		s.queue.wait() // there is room for more
	}
	now = now.Add(lineEvery)
	at := now.Format("time=2006-01-02T15:04:05.000Z07:00 level=WARN msg=last")
	s.say(slog.LevelWarn, "last")
	now = now.Add(time.Hour) // when it is written
	s.Close()
	if !strings.Contains(log.String(), at) {
		t.Errorf("no line has the time when it happened, %s", at)
	}
	if n := strings.Count(log.String(), "daemon is ready"); n != linesAtOnce/2 {
		t.Errorf("%d lines were written", n)
	}
	if !strings.Contains(log.String(), fmt.Sprintf("lines=%d", 10*linesAtOnce-linesAtOnce/2)) || !strings.Contains(log.String(), "msg=last") {
		t.Error("it is not said how many are missing")
	}
}

// TestUnknownKeysBounded: the names of unknown keys are a sender's to choose.
func TestUnknownKeysBounded(t *testing.T) {
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
	defer s.Close()
	var m notify.Message
	for i := range 10 * unknownKept {
		text := fmt.Sprintf("%d=1\n%d%s=1", i, i, strings.Repeat("x", unknownLongest))
		if err := m.Parse([]byte(text)); err != nil {
			t.Fatal(err)
		}
		s.unknown(&m)
	}
	kept := s.facts.UnknownKeys
	var sum uint64
	for _, n := range kept {
		sum += n
	}
	if len(kept) > unknownKept+1 || sum != 20*unknownKept {
		t.Errorf("%d names, %d in all: %v", len(kept), sum, kept)
	}
}

// TestStrangersBounded: each sender that is not heard is named once, and not all of them.
func TestStrangersBounded(t *testing.T) {
	log := &logBuffer{}
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{Log: slog.New(slog.NewTextHandler(log, nil))})
	for i := range 10 * strangersNamed {
		s.Dropped(notify.DropNUL, notify.Sender{PID: 1<<30 + i/2}) // no such processes
	}
	if s.dropped["nul"] != 10*strangersNamed {
		t.Errorf("counted %d", s.dropped["nul"])
	}
	s.Close()
	if n := strings.Count(log.String(), "datagram dropped"); n != strangersNamed {
		t.Errorf("%d are named", n)
	}
}

// TestPeopleBounded: however many processes speak, few are held.
func TestPeopleBounded(t *testing.T) {
	s := newService(Config{Name: "test", Policy: lifecycle.DefaultPolicy()}, Deps{})
	defer s.Close()
	for i := range 3 * peopleKept {
		h, err := proc.Proc.Open(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		s.meet(-i-1, h)
	}
	if len(s.people) != peopleKept || s.people[-3*peopleKept] == nil || s.people[-1] != nil {
		t.Errorf("%d are held", len(s.people))
	}
}
