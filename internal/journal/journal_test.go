package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is a log.
type text struct {
	mu sync.Mutex
	b  strings.Builder
}

func (x *text) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(b)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

func open(t *testing.T, path string) (*Dir, *text) {
	t.Helper()
	log := &text{}
	d, err := Open(path, proc.Proc, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, log
}

// ready is the record of a service whose main process is ready.
func ready() *Record {
	now := time.Now()
	m := lifecycle.New(lifecycle.DefaultPolicy())
	id := lifecycle.ProcID{PID: 17, Start: 4711}
	m.Apply(lifecycle.Event{Kind: lifecycle.Found, Who: id}, now.Add(-2*time.Second))
	m.Apply(lifecycle.Event{Kind: lifecycle.ReadyWord, Who: id}, now.Add(-time.Second))
	m.Apply(lifecycle.Event{Kind: lifecycle.Status, Who: id, Text: []byte("up \xff")}, now)
	r := &Record{Main: Process{ID: proc.ID(id), Inode: 12, Container: proc.Container{Cgroup: ":/../x", Name: "redis", Instance: "0a"}}, Access: "all", State: m.Record()}
	status, _ := m.Text()
	r.State.Status = string(status)
	return r
}

// write writes a record and waits until it is written.
func write(t *testing.T, f *File, r *Record) error {
	t.Helper()
	told := make(chan error, 1)
	if !f.Write(r, func(err error) { told <- err }) {
		t.Fatal("nobody waits")
	}
	select {
	case err := <-told:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("not written after half a minute")
		return nil
	}
}

// TestPut: what is put is on file at once, and comes after what was handed over. Without
// memory, and in trouble, nothing is put.
func TestPut(t *testing.T) {
	path, err := os.MkdirTemp("/dev/shm", "podnotify")
	if err != nil {
		t.Skip("there is no directory in memory: mount a tmpfs on /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(path) })
	d, _ := open(t, path)
	f := d.File("redis")
	on := func() string {
		t.Helper()
		r, err := f.Read()
		if err != nil || r == nil {
			t.Fatal(r, err)
		}
		return r.Access
	}
	r := ready()
	if r.Access = "main"; !f.Put(r) || on() != "main" {
		t.Fatal("not on file")
	}

	began, goOn := make(chan bool, 1), make(chan bool)
	d.mu.Lock()
	d.put = func(r *Record) error { began <- true; <-goOn; return d.file(r) }
	d.mu.Unlock()
	written := make(chan error, 2)
	first, second, third := ready(), ready(), ready()
	f.Write(first, func(err error) { written <- err })
	<-began
	if f.Put(second) {
		t.Error("put while another is being written")
	}
	second.Access = "exec"
	f.Write(second, func(err error) { written <- err })
	if f.Put(third) {
		t.Error("put while another waits to be written")
	}
	goOn <- true
	<-began
	goOn <- true
	for range 2 {
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
	if on() != "exec" {
		t.Error("the last that was handed over is not on file")
	}

	full := errors.New("no space")
	d.mu.Lock()
	d.put = func(*Record) error { return full }
	d.mu.Unlock()
	if f.Put(third) {
		t.Error("a failure is no failure")
	}
	if err := write(t, f, third); err != full || f.Trouble() == nil {
		t.Error("no trouble:", err)
	}
	if f.Put(ready()) {
		t.Error("put in trouble")
	}
	d.mu.Lock()
	d.put = d.file
	d.mu.Unlock()

	d.Close()
	if f.Put(ready()) {
		t.Error("put after the end")
	}
	slow, _ := open(t, t.TempDir())
	if slow.mem = false; slow.File("redis").Put(ready()) {
		t.Error("put on a disk")
	}
}

func TestJudge(t *testing.T) {
	lives := func(change func(*World)) World {
		w := World{Boot: "b", Main: ready().Main}
		if change != nil {
			change(&w)
		}
		return w
	}
	for _, c := range []struct {
		name   string
		record func(*Record)
		world  World
		want   Verdict
	}{
		{"all matches", nil, lives(nil), Proven},
		{"other boot", nil, lives(func(w *World) { w.Boot = "c" }), Foreign},
		{"no boot id", func(r *Record) { r.Boot = "" }, lives(func(w *World) { w.Boot = "" }), Foreign},
		{"other boot, no main process", func(r *Record) { r.State = lifecycle.Record{} }, lives(func(w *World) { w.Boot = "c" }), Foreign},
		{"no main process", func(r *Record) { r.State = lifecycle.Record{} }, lives(nil), Idle},
		{"it was gone", func(r *Record) { r.State = lifecycle.Record{Phase: lifecycle.Gone} }, lives(nil), Idle},
		{"nobody's readiness", func(r *Record) { r.State.Main = lifecycle.ProcID{} }, lives(nil), Changed},
		{"it has ended", nil, World{Boot: "b"}, Lost},
		{"its number was used again", nil, lives(func(w *World) { w.Main.Start++ }), Lost},
		{"within one tick", nil, lives(func(w *World) { w.Main.Inode++ }), Lost},
		{"the kernel has no pidfs", nil, lives(func(w *World) { w.Main.Inode = 0 }), Proven},
		{"the kernel had no pidfs", func(r *Record) { r.Main.Inode = 0 }, lives(nil), Proven},
		{"other cgroup", nil, lives(func(w *World) { w.Main.Container.Cgroup = ":/../y" }), Lost},
		{"other start of the container", nil, lives(func(w *World) { w.Main.Container.Instance = "0b" }), Lost},
		{"other container", nil, lives(func(w *World) { w.Main.Container.Name = "valkey" }), Lost},
		{"other way of being ready", func(r *Record) { r.State.Expect = lifecycle.ExpectStop }, lives(nil), Changed},
		{"other way, and it has ended", func(r *Record) { r.State.Expect = lifecycle.ExpectStop }, World{Boot: "b"}, Lost},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ready()
			r.Boot = "b"
			if c.record != nil {
				c.record(r)
			}
			if got := r.Judge(c.world, lifecycle.ExpectAuto); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestReadWritten(t *testing.T) {
	d, _ := open(t, filepath.Join(t.TempDir(), "state"))
	f := d.File("redis")
	if r, err := f.Read(); r != nil || err != nil {
		t.Fatal("there is a record from the first: ", r, err)
	}
	r := ready()
	want := r.State
	if err := write(t, f, r); err != nil {
		t.Fatal(err)
	}
	got, err := d.File("redis").Read()
	if err != nil {
		t.Fatal(err)
	}
	if got.Main != r.Main || got.Boot != d.boot || got.Service != "redis" || got.Access != "all" {
		t.Errorf("%+v", got)
	}
	for _, p := range []struct{ got, want *time.Time }{
		{&got.State.Since, &want.Since}, {&got.State.StartedAt, &want.StartedAt}, {&got.State.ReadyAt, &want.ReadyAt},
	} {
		if off := p.got.Sub(*p.want).Abs(); off > 50*time.Millisecond {
			t.Errorf("a time is %v off: %v, want %v", off, p.got, p.want)
		}
		*p.got = *p.want
	}
	want.Status = "up \ufffd" // JSON
	if got.State != want {
		t.Errorf("read    %+v\nwritten %+v", got.State, want)
	}
	if r, err := d.File("valkey").Read(); r != nil || err != nil {
		t.Error("another service has that record, too: ", r, err)
	}
	names, _ := filepath.Glob(d.path + "/*")
	if hidden, _ := filepath.Glob(d.path + "/.*"); len(names) != 1 || len(hidden) != 0 {
		t.Errorf("left over: %v %v", names, hidden)
	}
	if fi, _ := os.Stat(names[0]); fi.Mode() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
}

// TestClockSet: how long ago something was does not change with the clock.
func TestClockSet(t *testing.T) {
	written := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, step := range []time.Duration{0, time.Hour, -time.Hour, 90 * 24 * time.Hour} {
		r := ready()
		r.Written, r.Uptime = written, 1000*time.Second
		r.State.Since, r.State.ReadyAt = written.Add(-5*time.Second), written.Add(5*time.Second)
		now := written.Add(3 * time.Second).Add(step)
		r.rebase(now, 1003*time.Second)
		if ago := now.Sub(r.State.Since); ago != 8*time.Second {
			t.Errorf("clock set by %v: since %v, want 8 s", step, ago)
		}
		if r.State.ReadyAt != now {
			t.Errorf("clock set by %v: ready at %v, which is to come (now %v)", step, r.State.ReadyAt, now)
		}
	}
}

func TestDamaged(t *testing.T) {
	good := func(t *testing.T, d *Dir) string {
		if err := write(t, d.File("redis"), ready()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(d.path + "/redis.json")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	replaced := func(old, new string) func(t *testing.T, d *Dir, path string) {
		return func(t *testing.T, d *Dir, path string) {
			text := good(t, d)
			if !strings.Contains(text, old) {
				t.Fatalf("no %s in %s", old, text)
			}
			if err := os.WriteFile(path, []byte(strings.Replace(text, old, new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name, says string
		make       func(t *testing.T, d *Dir, path string)
	}{
		{"empty", "it is empty", func(t *testing.T, d *Dir, path string) { os.WriteFile(path, nil, 0o600) }},
		{"cut", "unexpected end", func(t *testing.T, d *Dir, path string) { good(t, d); os.Truncate(path, 100) }},
		{"noise", "invalid character", func(t *testing.T, d *Dir, path string) { os.WriteFile(path, []byte("\x00\xff{"), 0o600) }},
		{"two", "after top-level value", func(t *testing.T, d *Dir, path string) { os.WriteFile(path, []byte(good(t, d)+"{}"), 0o600) }},
		{"null", "its schema is 0", func(t *testing.T, d *Dir, path string) { os.WriteFile(path, []byte("null"), 0o600) }},
		{"huge", "bytes", func(t *testing.T, d *Dir, path string) {
			os.WriteFile(path, []byte(good(t, d)+strings.Repeat(" ", sizeMost)), 0o600)
		}},
		{"next version", "its schema is 2, this version of podnotify writes 1", replaced(`"schema":1`, `"schema":2`)},
		{"other service", `it is about service "valkey"`, replaced(`"service":"redis"`, `"service":"valkey"`)},
		{"two main processes", "two main processes", replaced(`"main":{"PID":17`, `"main":{"PID":18`)},
		{"no such phase", `"done" is no phase`, replaced(`"phase":"ready"`, `"phase":"done"`)},
		{"no such expect", `"yes" is no way of being ready`, replaced(`"expect":"auto"`, `"expect":"yes"`)},
		{"impossible", "not started, and the phase is ready", replaced(`"started":true,`, ``)},
		{"link", "it is a symbolic link", func(t *testing.T, d *Dir, path string) { os.Symlink("/etc/passwd", path) }},
		{"fifo", "it is no regular file", func(t *testing.T, d *Dir, path string) { unix.Mkfifo(path, 0o600) }},
		{"directory", "it is no regular file", func(t *testing.T, d *Dir, path string) { os.Mkdir(path, 0o700) }},
		{"not ours", "it belongs to uid 4711", func(t *testing.T, d *Dir, path string) {
			good(t, d)
			if os.Chown(path, 4711, 4711) != nil {
				t.Skip("missing uid 0, to give a file away; run as root")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _ := open(t, filepath.Join(t.TempDir(), "state"))
			path := d.path + "/redis.json"
			c.make(t, d, path)
			r, err := d.File("redis").Read()
			if r != nil || err == nil {
				t.Fatalf("it is read: %+v", r)
			}
			for _, want := range []string{c.says, path, "set aside as redis.json.bad"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if _, err := os.Lstat(path + ".bad"); err != nil {
				t.Error(err)
			}
			if r, err := d.File("redis").Read(); r != nil || err != nil {
				t.Errorf("it is still there: %v %v", r, err)
			}
			if err := write(t, d.File("redis"), ready()); err != nil {
				t.Errorf("cannot write in its place: %v", err)
			}
		})
	}
}

// TestLeftBehind: what a podnotify that was killed has begun to write is in
// nobody's way, whatever it is.
func TestLeftBehind(t *testing.T) {
	d, _ := open(t, filepath.Join(t.TempDir(), "state"))
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, leave := range []func(string) error{
		func(p string) error { return os.WriteFile(p, []byte("half a rec"), 0o600) },
		func(p string) error { return os.Symlink(victim, p) },
		func(p string) error { return unix.Mkfifo(p, 0o600) },
	} {
		if err := leave(d.path + "/.redis"); err != nil {
			t.Fatal(err)
		}
		if err := write(t, d.File("redis"), ready()); err != nil {
			t.Error(err)
		}
	}
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("a link was followed: %q", b)
	}
}

// TestPutAside: where even that is impossible it is said.
func TestPutAside(t *testing.T) {
	d, _ := open(t, filepath.Join(t.TempDir(), "state"))
	os.WriteFile(d.path+"/redis.json", []byte("?"), 0o600)
	os.MkdirAll(d.path+"/redis.json.bad/full", 0o700)
	if _, err := d.File("redis").Read(); err == nil || !strings.Contains(err.Error(), "cannot be set aside either") {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	for _, path := range []string{file, file + "/state", "/proc/state"} {
		if d, err := Open(path, proc.Proc, slog.Default()); err == nil {
			d.Close()
			t.Errorf("%s is a directory for state", path)
		} else if !strings.HasPrefix(err.Error(), "cannot keep state in "+path) {
			t.Error(err)
		}
	}
	if _, err := Open(t.TempDir(), proc.FS(t.TempDir()), slog.Default()); err == nil {
		t.Error("without a boot id nothing can be proven")
	}
}

// slow is a directory whose disk does what a test says.
func slow(t *testing.T, put func(*Record) error) (*Dir, *text) {
	d, log := open(t, t.TempDir())
	d.put = put
	return d, log
}

// TestHangs: a disk that hangs holds nobody up for longer than Patience, once.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var wrote []string
		d, log := slow(t, func(r *Record) error { <-hang; wrote = append(wrote, r.Service+r.State.Status); return nil })
		began := time.Now()
		var told atomic.Int32
		for i := range 3 {
			r := ready()
			r.State.Status = "1"
			if !d.File(fmt.Sprint(i)).Write(r, func(err error) {
				if told.Add(1); err != errSlow || time.Since(began) != Patience {
					t.Errorf("told %v after %v", err, time.Since(began))
				}
			}) {
				t.Error("nobody waits from the first")
			}
		}
		synctest.Wait()
		if told.Load() != 0 || d.Trouble() != nil {
			t.Error("told too early")
		}
		time.Sleep(Patience)
		synctest.Wait()
		if told.Load() != 3 || d.Trouble() == nil || !strings.Contains(*d.Trouble(), "longer than 100ms") {
			t.Errorf("told %d, trouble %v", told.Load(), d.Trouble())
		}
		r := ready()
		r.State.Status = "2"
		f := d.File("0")
		if f.Write(r, func(error) { t.Error("told") }) {
			t.Error("it hangs, and one waits")
		}
		close(hang)
		synctest.Wait()
		if want := []string{"01", "11", "21", "02"}; fmt.Sprint(wrote) != fmt.Sprint(want) {
			t.Errorf("written %v, want %v", wrote, want)
		}
		if d.Trouble() != nil || !strings.Contains(log.String(), "state is kept again") {
			t.Errorf("the trouble lasts: %v", d.Trouble())
		}
		if !f.Write(ready(), func(error) {}) {
			t.Error("it hangs no more, and nobody waits")
		}
		d.Close()
	})
}

// TestFails: what could not be written is told, and tried again until it is. The
// newest counts.
func TestFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		full := true
		var tried []time.Duration
		began := time.Now()
		var last string
		d, log := slow(t, func(r *Record) error {
			mu.Lock()
			defer mu.Unlock()
			tried = append(tried, time.Since(began))
			if full {
				return unix.ENOSPC
			}
			last = r.State.Status
			return nil
		})
		f := d.File("redis")
		for _, s := range []string{"1", "2"} {
			r := ready()
			r.State.Status = s
			if err := write(t, f, r); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("told %v", err)
			}
		}
		trouble := d.Trouble()
		if trouble == nil || !strings.Contains(*trouble, "no space left on device") {
			t.Fatalf("trouble %v", trouble)
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		mu.Lock()
		if want := "[0s 0s 1s 3s 7s 15s 31s 1m1s 1m31s]"; fmt.Sprint(tried) != want {
			t.Errorf("tried after %v, want %s", tried, want)
		}
		if d.Trouble() != trouble || strings.Count(log.String(), "not kept") != 1 {
			t.Errorf("said more than once:\n%s", log)
		}
		full = false
		mu.Unlock()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if last != "2" || d.Trouble() != nil {
			t.Errorf("written %q, trouble %v", last, d.Trouble())
		}
		n := len(tried)
		mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if mu.Lock(); len(tried) != n {
			t.Error("tried again although it is written")
		}
		d.Close()
	})
}

// TestReplaced: of records that wait the newest is written, once.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{}, 100)
		var wrote []string
		d, _ := slow(t, func(r *Record) error { <-hang; wrote = append(wrote, r.State.Status); return nil })
		f := d.File("redis")
		for i := range 10 {
			r := ready()
			r.State.Status = fmt.Sprint(i)
			f.Write(r, nil)
			synctest.Wait()
		}
		close(hang)
		synctest.Wait()
		if fmt.Sprint(wrote) != "[0 9]" {
			t.Errorf("written %v", wrote)
		}
		d.Close()
	})
}

// TestCloseWrites: what was handed over is written before the directory is closed.
func TestCloseWrites(t *testing.T) {
	d, _ := open(t, t.TempDir())
	for i := range 100 {
		d.File(fmt.Sprint(i)).Write(ready(), nil)
	}
	d.Close()
	if names, _ := filepath.Glob(d.path + "/*.json"); len(names) != 100 {
		t.Errorf("%d of 100 written", len(names))
	}
	if d.File("late").Write(ready(), nil) {
		t.Error("written after the end")
	}
}

// TestManyWriters is for the race detector.
func TestManyWriters(t *testing.T) {
	d, _ := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			f := d.File(fmt.Sprint(i))
			for range 200 {
				told := make(chan struct{})
				if f.Write(ready(), func(error) { close(told) }) {
					<-told
				}
			}
			for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // told after Patience, a slow disk writes on
				r, err := f.Read()
				if err == nil && r != nil {
					return
				}
				if time.Now().After(end) {
					t.Error(r, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzJournal: no file makes trouble, and what is taken for a record is one that
// could have been written.
func FuzzJournal(f *testing.F) {
	d, _ := openForFuzz(f)
	told := make(chan error, 1)
	d.File("redis").Write(ready(), func(err error) { told <- err })
	<-told
	b, err := os.ReadFile(d.path + "/redis.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	for _, s := range []string{"", "null", "{}", `{"schema":1}`, `{"schema":1,"service":"redis","boot":"b","written":"2026-11-22T07:00:00Z","state":{"expect":"stop","phase":"gone","lastExit":{}}}`} {
		f.Add([]byte(s))
	}
	policies := []lifecycle.Unknown{lifecycle.UnknownNotReady, lifecycle.UnknownReady, lifecycle.UnknownReload, lifecycle.UnknownRestart}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b, "redis")
		if err != nil {
			return
		}
		now := time.Now()
		r.rebase(now, proc.Uptime())
		for _, unknown := range policies {
			p := lifecycle.DefaultPolicy()
			p.Expect, p.OnUnknown = r.State.Expect, unknown
			for _, dies := range []bool{false, true} {
				m := lifecycle.Restore(p, r.State)
				if m.Record() != withoutStatus(r.State) {
					t.Fatalf("restored %+v\nof %+v", m.Record(), r.State)
				}
				if dies {
					m.Apply(lifecycle.Event{Kind: lifecycle.Ended, Who: r.State.Main, Missed: true}, now)
				} else {
					m.Apply(lifecycle.Event{Kind: lifecycle.Resumed, Who: r.State.Main}, now)
				}
				s := m.Snapshot()
				_, notReady := s.Failing(&p, lifecycle.Readyz, nil)
				_, notLive := s.Failing(&p, lifecycle.Livez, nil)
				switch {
				case !notReady && notLive:
					t.Fatalf("ready and not live: %+v", s)
				case !notReady && s.Main == lifecycle.ProcID{}:
					t.Fatalf("ready and nobody there: %+v", s)
				case !notReady && unknown != lifecycle.UnknownReady && r.State.Phase != lifecycle.Ready && r.State.Before != lifecycle.Ready:
					t.Fatalf("ready, and was %v: %+v", r.State.Phase, s)
				}
			}
		}
	})
}

func withoutStatus(r lifecycle.Record) lifecycle.Record {
	r.Status = ""
	return r
}

func openForFuzz(f *testing.F) (*Dir, *text) {
	log := &text{}
	d, err := Open(f.TempDir(), proc.Proc, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(d.Close)
	return d, log
}

// BenchmarkWrite is what a change of phase costs the writer.
func BenchmarkWrite(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "journal") // memory, as a run-dir is
	if err != nil {
		dir = b.TempDir()
	}
	defer os.RemoveAll(dir)
	d, err := Open(dir, proc.Proc, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	r := ready()
	r.Service, r.Boot = "redis", d.boot
	b.ReportAllocs()
	for b.Loop() {
		if err := d.file(r); err != nil {
			b.Fatal(err)
		}
	}
}
