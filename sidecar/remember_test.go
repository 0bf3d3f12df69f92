package sidecar

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/testdaemon"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// writes counts the files that appear in a directory.
type writes struct {
	t  testing.TB
	fd int
	n  int
}

func watchWrites(t testing.TB, dir string) *writes {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	return &writes{t: t, fd: fd}
}

func (w *writes) count() int {
	w.t.Helper()
	var b [4096]byte
	for {
		n, err := unix.Read(w.fd, b[:])
		if err == unix.EAGAIN {
			return w.n
		}
		if err != nil {
			w.t.Fatal(err)
		}
		for i := 0; i < n; w.n++ {
			i += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[i+12:]))
		}
	}
}

// file is the state file's path.
func (p *pinger) file() string { return filepath.Join(p.dep.Journal.Path(), p.cfg.Name+".json") }

// onFile waits until the state file says something.
func (p *pinger) onFile(text string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		b, _ := os.ReadFile(p.file())
		if strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the state file does not say %q: %s", text, b)
		}
	}
}

// settled waits until all that is known is on file.
func (p *pinger) settled() {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		done := p.remembered()
		p.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			p.t.Fatal("not on file after half a minute")
		}
	}
}

// TestWritesOnlyNews: what is known already is not written again, however often
// it is said.
func TestWritesOnlyNews(t *testing.T) {
	p := newPinger(t, false, false)
	p.settled()
	w := watchWrites(t, filepath.Dir(p.file()))
	for range 10_000 {
		p.send("READY=1\nWATCHDOG=1\nMAINPID=" + strconv.Itoa(os.Getpid()))
		p.receive()
	}
	p.settled()
	if n := w.count(); n != 0 {
		t.Errorf("written %d times", n)
	}
	p.send("ERRNO=5")
	p.receive()
	p.settled()
	p.onFile(`"errno":5`)
	if n := w.count(); n != 1 {
		t.Errorf("written %d times for one change", n)
	}
}

// TestStatusIsWrittenSeldom: STATUS alone is written once a second, and the last
// one is.
func TestStatusIsWrittenSeldom(t *testing.T) {
	p := newPinger(t, false, false)
	p.settled()
	w := watchWrites(t, filepath.Dir(p.file()))
	began := time.Now()
	for i := range 2000 {
		p.send(fmt.Sprintf("STATUS=step %d", i))
		p.receive()
	}
	p.onFile(`"step 1999"`)
	if most := 2 + int(time.Since(began)/statusEvery); w.count() > most {
		t.Errorf("written %d times within %v", w.count(), time.Since(began))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mem.due.IsZero() {
		t.Error("there is nothing to be written, and a timer is due for it")
	}
}

// TestStatusDuringWrite: a STATUS that comes while something else is being written gets on
// file, though nobody asks and nothing else happens.
func TestStatusDuringWrite(t *testing.T) {
	p := newPinger(t, false, false)
	p.mu.Lock()
	p.mem.put = func(*journal.Record) bool { return false }
	p.mu.Unlock()
	for i, met := 1, 0; met < 3; i++ {
		p.settled()
		status := fmt.Sprintf("word %d", i)
		p.mu.Lock() // which who has written would need
		p.hearLocked(fmt.Sprintf("ERRNO=%d", i))
		p.hearLocked("STATUS=" + status)
		if p.mem.writing && p.mem.result.Load() == nil { // mostly
			met++
		}
		p.mu.Unlock()
		p.onFile(status)
		if i > 60 {
			t.Fatalf("of %d writes %d were under way when a STATUS came", i, met)
		}
	}
}

// hearLocked says something and takes note of it, with the lock held.
func (p *pinger) hearLocked(text string) {
	p.t.Helper()
	p.send(text)
	if _, err := p.drain(batch); err != nil {
		p.t.Fatal(err)
	}
	p.settle()
}

// TestDeadlineGone: with the last deadline the timer goes, too, and comes again with the
// next one.
func TestDeadlineGone(t *testing.T) {
	p := newPinger(t, false, false)
	p.settled()
	armed := func(text string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.hearLocked(text)
		return !p.armed.IsZero()
	}
	for range 3 {
		if !armed("RELOADING=1\nMONOTONIC_USEC=1") {
			t.Error("nothing waits for the end of a reload")
		}
		if armed("READY=1") {
			t.Error("a timer is set, and nothing is due")
		}
	}
	if !armed("WATCHDOG_USEC=100000000") {
		t.Error("nothing waits for the watchdog")
	}
}

// late reports whether the journal has told, after the log said what it did, that a
// write took too long: on a busy machine one may. Then nobody waits for it.
func (p *pinger) late(log string) bool {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if p.trouble() != nil || p.log.String() != log {
			return true
		}
	}
	return false
}

// TestPublishedWhenWritten: nobody is told what is not on file, and all is on
// file when somebody is told. No news waits for that.
func TestPublishedWhenWritten(t *testing.T) { inMemoryAndNot(t, publishedWhenWritten) }

// inMemoryAndNot tests a pinger whose state is written at once, and one whose state is
// handed over, as it is where the directory is not in memory.
func inMemoryAndNot(t *testing.T, test func(*testing.T, *pinger)) {
	t.Run("at once", func(t *testing.T) { test(t, newPinger(t, false, false)) })
	t.Run("handed over", func(t *testing.T) {
		p := newPinger(t, false, false)
		p.mu.Lock()
		p.mem.put = func(*journal.Record) bool { return false }
		p.mu.Unlock()
		test(t, p)
	})
}

func publishedWhenWritten(t *testing.T, p *pinger) {
	p.settled()
	for i := 1; i < 400; i++ {
		log := p.log.String()
		p.send(fmt.Sprintf("%s\nERRNO=%d", []string{"RELOADING=1", "READY=1"}[i%2], i))
		p.receive()
		told := p.Look()
		b, err := os.ReadFile(p.file())
		if err != nil {
			t.Fatal(err)
		}
		var r journal.Record
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if told.Errno > r.State.Errno && !p.late(log) {
			t.Fatalf("change %d is told, and %d is on file", told.Errno, r.State.Errno)
		}
		if i%3 == 0 {
			p.settled()
			if told := p.Look(); told.Errno != i || told.Phase == lifecycle.Ready != (i%2 == 1) {
				t.Fatalf("change %d is on file, and %d is told: %v", i, told.Errno, told.Phase)
			}
		}
	}
}

// TestLookHears: what was said before somebody asks is in the answer, whether the receiver
// has been awake or not.
func TestLookHears(t *testing.T) {
	inMemoryAndNot(t, func(t *testing.T, p *pinger) {
		for i := 1; i < 200; i++ {
			p.send(fmt.Sprintf("ERRNO=%d", i))
			if i%2 == 1 {
				p.send("RELOADING=1")
			} else {
				p.send("READY=1\nERRNO=" + strconv.Itoa(i))
			}
			n := p.Look()
			for end := time.Now().Add(30 * time.Second); n.Errno != i && time.Now().Before(end); n = p.Look() {
				if strings.HasSuffix(t.Name(), "at_once") {
					t.Fatalf("round %d: %d is told", i, n.Errno)
				}
			}
			if n.Errno != i || n.Phase == lifecycle.Ready != (i%2 == 0) {
				t.Fatalf("round %d: %v, errno %d is told", i, n.Phase, n.Errno)
			}
		}
	})
}

// TestBarrierWaits: a barrier is answered when what was said before it is on file.
func TestBarrierWaits(t *testing.T) { inMemoryAndNot(t, barrierWaits) }

func barrierWaits(t *testing.T, p *pinger) {
	p.settled()
	for i := range 200 {
		var end [2]int
		if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		p.send(fmt.Sprintf("RELOADING=1\nERRNO=%d", 1+i%100))
		if err := unix.Sendmsg(p.fd, []byte("BARRIER=1"), unix.UnixRights(end[1]), nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(end[1])
		p.receive()
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(end[0])}}, 30_000)
		for err == unix.EINTR { // the runtime's own signals
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(end[0])}}, 30_000)
		}
		if n != 1 || err != nil {
			t.Fatalf("round %d: the barrier stays closed: %v", i, err)
		}
		unix.Close(end[0])
		b, _ := os.ReadFile(p.file())
		if want := fmt.Sprintf(`"errno":%d,`, 1+i%100); !strings.Contains(string(b), want) {
			t.Fatalf("round %d: the barrier is open, and on file is %s", i, b)
		}
		if s := p.Look(); s.Phase != lifecycle.Reloading || s.Errno != 1+i%100 {
			t.Fatalf("round %d: the barrier is open, and %v, errno %d is told", i, s.Phase, s.Errno)
		}
	}
}

// TestBarrierHangs: what comes with BARRIER=1 and is no pipe is nobody's barrier. It may
// take for ever to close, and the journal's goroutine must not be the one to do it.
func TestBarrierHangs(t *testing.T) {
	p := newPinger(t, false, false)
	p.settled()
	p.mu.Lock()
	p.mem.ended = make(chan struct{})
	p.mem.writing = true // as if the disk hung
	p.mu.Unlock()
	before := descriptors(t, os.DevNull)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(p.fd, []byte("BARRIER=1"), unix.UnixRights(int(null.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	null.Close()
	p.receive()
	for end := time.Now().Add(30 * time.Second); descriptors(t, os.DevNull) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is held until there is a write")
		}
	}
	p.written(nil, p.mem.ended)
}

// TestBarrierFlood: barriers that wait for a file are not collected without end.
func TestBarrierFlood(t *testing.T) {
	p := newPinger(t, false, false)
	p.settled()
	p.mu.Lock()
	p.mem.ended = make(chan struct{})
	p.mem.writing = true // as if the disk hung
	p.mu.Unlock()
	before := descriptors(t, "pipe:")
	for range 4 * heldMost {
		var end [2]int
		if err := unix.Pipe2(end[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(p.fd, []byte("BARRIER=1"), unix.UnixRights(end[1]), nil, 0); err != nil {
			t.Fatal(err)
		}
		unix.Close(end[1])
		p.receive()
		unix.Close(end[0])
	}
	if n := descriptors(t, "pipe:") - before; n > heldMost {
		t.Errorf("%d descriptors are held", n)
	}
	p.written(nil, p.mem.ended)
	end := time.Now().Add(30 * time.Second) // who has the lock just now lets them go in a moment
	for n := descriptors(t, "pipe:") - before; n > 0; n = descriptors(t, "pipe:") - before {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are held for good", n)
		}
		time.Sleep(time.Millisecond)
	}
}

// descriptors counts those whose link in /proc begins with of.
func descriptors(t *testing.T, of string) (n int) {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if link, err := os.Readlink("/proc/self/fd/" + name.Name()); err == nil && strings.HasPrefix(link, of) {
			n++
		}
	}
	return n
}

// TestPodOnce: a restart of the pod is not asked for where that cannot be noted.
func TestPodOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		restart bool
	}{{"noted", nil, true}, {"not noted", unix.ENOSPC, false}} {
		t.Run(c.name, func(t *testing.T) {
			asked := false
			s := newService(Config{Name: "test"}, Deps{Journal: state(t).File("test"), RestartPod: func() { asked = true }})
			defer s.Close()
			s.mu.Lock()
			s.act(lifecycle.Action{Kind: lifecycle.RestartPod})
			s.release(&s.mem.later, c.err)
			warned := len(s.facts.Warnings) > 0
			s.mu.Unlock()
			s.Close()
			if asked != c.restart || warned == c.restart {
				t.Errorf("asked %v, warned %v", asked, warned)
			}
		})
	}
}

// TestMissed: who may have spoken before this podnotify listened.
func TestMissed(t *testing.T) {
	self, err := proc.Proc.Stat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	me := lifecycle.ProcID(self.ID())
	stopped := testdaemon.Command("stop; wait")
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopped.Process.Kill(); stopped.Wait() })
	var halted lifecycle.ProcID
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := proc.Proc.Stat(stopped.Process.Pid)
		if err != nil || time.Now().After(end) {
			t.Fatal("it does not stop: ", err)
		}
		if st.State.Stopped() {
			halted = lifecycle.ProcID(st.ID())
			break
		}
	}
	for _, c := range []struct {
		name   string
		expect lifecycle.Expect
		change func(*Service)
		who    lifecycle.ProcID
		want   bool
	}{
		{"older than the socket", lifecycle.ExpectAuto, nil, me, true},
		{"of the same tick", lifecycle.ExpectAuto, func(s *Service) { s.since = me.Start }, me, false},
		{"younger", lifecycle.ExpectAuto, func(s *Service) { s.since = me.Start - 1 }, me, false},
		{"no socket", lifecycle.ExpectAuto, func(s *Service) { s.since = 0 }, me, false},
		{"our child", lifecycle.ExpectAuto, func(s *Service) { s.dep.Parent = true }, me, false},
		{"stopped still", lifecycle.ExpectStop, nil, halted, false},
		{"stopped still, or READY=1", lifecycle.ExpectAuto, nil, halted, false},
		{"stopped, which is nothing here", lifecycle.ExpectNotify, nil, halted, true},
		{"not visible", lifecycle.ExpectAuto, nil, lifecycle.ProcID{Start: 4711}, false},
		{"not visible, and there was one before", lifecycle.ExpectAuto, func(s *Service) { s.blind = true }, lifecycle.ProcID{Start: 4711}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newService(Config{Name: "test", Policy: lifecycle.Policy{Expect: c.expect}}, Deps{})
			defer s.Close()
			s.since = max(me.Start, halted.Start) + 1
			if c.change != nil {
				c.change(s)
			}
			if got := s.missed(c.who); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}

// TestRecall is what a new service makes of the record of an earlier one, in the
// ways that the whole program cannot easily be brought into.
func TestRecall(t *testing.T) {
	d := state(t)
	write := func(t *testing.T, change func(*journal.Record)) {
		t.Helper()
		st, err := proc.Proc.Stat(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		h, err := proc.Proc.Open(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		box, err := proc.Proc.Container(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		m := lifecycle.New(lifecycle.DefaultPolicy())
		me := lifecycle.ProcID(st.ID())
		m.Apply(lifecycle.Event{Kind: lifecycle.Found, Who: me}, time.Now())
		m.Apply(lifecycle.Event{Kind: lifecycle.ReadyWord, Who: me}, time.Now())
		m.Apply(lifecycle.Event{Kind: lifecycle.Errno, Who: me, Number: 5}, time.Now())
		r := &journal.Record{Main: journal.Process{ID: h.ID(), Inode: h.Inode(), Container: box}, Access: "main", State: m.Record()}
		r.State.Status = "warm"
		if change != nil {
			change(r)
		}
		told := make(chan error, 1)
		d.File("test").Write(r, func(err error) { told <- err })
		if err := <-told; err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*journal.Record)
		expect lifecycle.Expect
		check  func(s *Service, n *lifecycle.Snapshot) bool
	}{
		{"proven", nil, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Ready && n.Main.PID == os.Getpid() && n.Status == "warm" && n.Errno == 5 && s.access == AccessMain && n.Facts.Adopted && s.main != nil && s.Command(n.Main) != ""
		}},
		{"another process", func(r *journal.Record) { r.Main.Start--; r.State.Main.Start-- }, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Gone && n.LastExit.Who.PID == os.Getpid() && !n.Facts.Adopted && !n.Facts.ContainerAlive && n.Errno == 5 == (n.Phase == lifecycle.Gone)
		}},
		{"another container", func(r *journal.Record) { r.Main.Container.Instance = "other" }, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Gone && !n.Facts.Adopted
		}},
		{"another way of being ready", nil, lifecycle.ExpectStop, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Absent && n.LastExit == nil && s.access == AccessAll
		}},
		{"a helper that has ended since", func(r *journal.Record) {
			r.State.Voice, r.State.VoiceReady, r.State.Spoke = lifecycle.ProcID{PID: 1 << 22, Start: 1}, true, false
		}, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Starting && n.Unknown && n.Started
		}},
		{"one that cannot be found again", func(r *journal.Record) {
			r.Main = journal.Process{ID: proc.ID{Start: 4711}}
			r.State.Main = lifecycle.ProcID{Start: 4711}
		}, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool { return n.Phase == lifecycle.Gone && s.blind }},
		{"a stop that was answered", func(r *journal.Record) {
			r.State.Phase, r.State.Started, r.State.Owed = lifecycle.Starting, false, r.State.Main
		}, lifecycle.ExpectAuto, func(s *Service, n *lifecycle.Snapshot) bool {
			return n.Phase == lifecycle.Ready && n.Owed == lifecycle.ProcID{} && !n.Unknown
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, c.change)
			cfg := Config{Name: "test", Policy: lifecycle.Policy{Expect: c.expect}}
			s, err := New(cfg, Deps{Scope: everyone{}, Journal: d.File("test")})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if n := s.Look(); !c.check(s, n) {
				t.Errorf("%+v", n)
			}
		})
	}
}
