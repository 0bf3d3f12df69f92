// Package journal keeps what podnotify must know again after its own restart:
// one small file for each service, <run-dir>/state/<service>.json. It owns their
// form, their writing, and the judgement whether one is still true. It never
// decides what a daemon's news means.
//
// # Written before it is published, and nobody waits
//
// READY=1 is said once. What podnotify has told anybody must survive its own
// SIGKILL, so a change is on file before an answer shows it and before a signal
// follows from it. But no answer, and not the receiver of datagrams, may wait for
// a disk.
//
// The run-dir is memory by contract (tmpfs, emptyDir with medium Memory), where
// a write takes some ten microseconds, less than it takes to wake a thread for it:
// so whoever brings the news writes it ([File.Put]).
//
// Where it is not memory, or a write has failed, it is the publication that waits,
// not those who ask or speak: the receiver hands a record to the one goroutine that
// writes and goes on ([File.Write]); the write then publishes the next snapshot,
// closes barriers, and lets signals go. An answer gives a write that is under way a
// millisecond, and is then made from the last snapshot.
//
// Where the directory is full, read-only, or on a disk that hangs, a write fails, or
// takes longer than [Patience]. Then podnotify is degraded: it publishes without waiting, says
// so in its log, in /statusz and in podnotify_degraded, fails no probe for it, and
// tries again until it succeeds.
//
// Nothing is fsynced. A state file outlives podnotify in the page cache, and a
// crash of the kernel makes it worthless anyhow: the next boot has another id, and
// no process of this one lives.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
)

// Patience is how long a publication waits for its record to be written.
const Patience = 100 * time.Millisecond

// Records that could not be written are tried again after so long, doubling.
const (
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// sizeMost bounds what is read: a record has one datagram's STATUS, escaped, and
// little else.
const sizeMost = 64 << 10

// Dir is the state directory of one podnotify, which holds the lock of the
// run-dir.
type Dir struct {
	path string
	fd   int
	boot string
	mem  bool // the directory is memory: writing waits for nothing
	log  *slog.Logger
	put  func(*Record) error // file; a test may have a slower one

	trouble atomic.Pointer[string] // why records are not kept now; nil: they are

	mu       sync.Mutex // leaf: nothing is waited for under it
	waiting  []*File    // that have something to write, each once
	writing  *File
	told     func(error) // who waits for the write under way
	stuck    bool        // the write under way takes too long: nobody waits for any
	watch    *time.Timer // patience
	failed   []*File     // whose last record could not be written
	retrying bool
	pause    time.Duration // before the next retry
	wake     chan struct{}
	closed   bool
	ended    chan struct{}
}

// Open makes the directory path, if it has to, and keeps it open. A path that
// cannot be written to is an error.
func Open(path string, from proc.FS, log *slog.Logger) (*Dir, error) {
	boot, err := from.BootID()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot keep state in %s: %w", path, bare(err))
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, 0); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot keep state in %s: %w; name another directory with --run-dir", path, err)
	}
	d := &Dir{path: path, fd: fd, boot: boot, log: log, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	var held unix.Statfs_t
	if unix.Fstatfs(fd, &held) == nil {
		d.mem = held.Type == unix.TMPFS_MAGIC || held.Type == unix.RAMFS_MAGIC
	}
	d.put = d.file
	d.watch = time.AfterFunc(time.Hour, d.impatient)
	d.watch.Stop()
	go d.write()
	return d, nil
}

// Trouble is why records are not kept now, nil if they are. The pointer changes
// whenever that does.
func (d *Dir) Trouble() *string { return d.trouble.Load() }

// lastWrite is how long the end waits for what is left to be written.
const lastWrite = time.Second

// Close writes what is left, unless that takes too long.
func (d *Dir) Close() {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	d.closed = true
	d.mu.Unlock()
	d.nudge()
	select {
	case <-d.ended:
		unix.Close(d.fd)
	case <-time.After(lastWrite): // it hangs, and ends with us
	}
}

// File is the state file of one service.
type File struct {
	d    *Dir
	name string // of the service

	// Under d.mu.
	next   *Record     // to be written
	done   func(error) // to be told; nil: nobody waits
	queued bool
	unkept bool // next could not be written
}

// File returns the state file of a service.
func (d *Dir) File(service string) *File { return &File{d: d, name: service} }

// Path is the directory the file is in.
func (f *File) Path() string { return f.d.path }

// Trouble is why records are not kept now, nil if they are. The pointer changes
// whenever that does.
func (f *File) Trouble() *string { return f.d.Trouble() }

// Write has a record written, instead of an earlier one that is not yet. It never
// waits. If it returns true, done is called once, by another goroutine, when the
// record is written or could not be, or when Patience is over; done must not wait
// for anything. If it returns false podnotify is degraded, and nobody should wait.
// The record is the journal's from here on.
func (f *File) Write(r *Record, done func(error)) bool {
	d := f.d
	r.Schema, r.Service, r.Boot = Schema, f.name, d.boot
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	waits := !d.stuck
	f.next, f.done, f.unkept = r, nil, false
	if waits {
		f.done = done
	}
	if !f.queued {
		f.queued = true
		d.waiting = append(d.waiting, f)
	}
	if waits && d.writing == nil && len(d.waiting) == 1 {
		d.watch.Reset(Patience)
	}
	d.nudge()
	return waits
}

// Put has a record written before it returns, instead of an earlier one. It does so only
// where that cannot take long: the directory is memory, and nothing is amiss. It reports
// whether it did; if not, Write does.
func (f *File) Put(r *Record) bool {
	d := f.d
	if !d.mem || d.Trouble() != nil {
		return false
	}
	r.Schema, r.Service, r.Boot = Schema, f.name, d.boot
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || f.next != nil || d.writing == f {
		return false // what was handed over before comes first
	}
	return d.put(r) == nil
}

func (d *Dir) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// write is the goroutine that writes.
func (d *Dir) write() {
	defer close(d.ended)
	for range d.wake {
		for {
			f, r := d.take()
			if f == nil {
				break
			}
			d.wrote(f, r, d.put(r))
		}
		d.mu.Lock()
		closed := d.closed
		d.mu.Unlock()
		if closed {
			return
		}
	}
}

// take takes the record that has waited longest.
func (d *Dir) take() (*File, *Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		return nil, nil
	}
	f := d.waiting[0]
	if d.waiting = d.waiting[1:]; len(d.waiting) == 0 {
		d.waiting = nil
	}
	f.queued = false
	d.writing, d.told = f, f.done
	f.done = nil
	return f, f.next
}

// wrote takes note of how a write has ended, and tells who waits for it.
func (d *Dir) wrote(f *File, r *Record, err error) {
	d.mu.Lock()
	if f.next == r { // none newer waits
		f.unkept = err != nil
		if err == nil {
			f.next = nil
		} else {
			d.failed = append(d.failed, f)
		}
	}
	d.stuck = false
	done := d.told
	d.writing, d.told = nil, nil
	if len(d.waiting) > 0 {
		d.watch.Reset(Patience)
	} else {
		d.watch.Stop()
	}
	if err == nil && len(d.failed) == 0 {
		d.pause = 0
	} else if !d.retrying && !d.closed {
		d.retrying = true
		d.pause = min(max(2*d.pause, retryFirst), retryMost)
		time.AfterFunc(d.pause, d.retry)
	}
	d.mu.Unlock()
	d.report(err)
	if done != nil {
		done(err)
	}
}

// retry has another go at what could not be written.
func (d *Dir) retry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retrying = false
	for _, f := range d.failed {
		if f.unkept && !f.queued && f.next != nil {
			f.queued = true
			d.waiting = append(d.waiting, f)
		}
	}
	d.failed = nil
	d.nudge()
}

var errSlow = fmt.Errorf("a write has taken longer than %v", Patience)

// impatient ends the waiting for a write that hangs, and for those behind it.
func (d *Dir) impatient() {
	d.mu.Lock()
	if d.writing == nil && len(d.waiting) == 0 {
		d.mu.Unlock()
		return
	}
	d.stuck = true
	var told []func(error)
	if d.told != nil {
		told = append(told, d.told)
		d.told = nil
	}
	for _, f := range d.waiting {
		if f.done != nil {
			told = append(told, f.done)
			f.done = nil
		}
	}
	d.mu.Unlock()
	d.report(errSlow)
	for _, done := range told {
		done(errSlow)
	}
}

// report says when trouble begins, changes or ends, once each.
func (d *Dir) report(err error) {
	old := d.trouble.Load()
	if err == nil {
		if old != nil && d.trouble.CompareAndSwap(old, nil) {
			d.log.Info("state is kept again", "directory", d.path)
		}
		return
	}
	text := fmt.Sprintf("state is not kept in %s: %v; until it is, a restart of podnotify forgets what daemons have said", d.path, bare(err))
	if old == nil || *old != text {
		d.trouble.Store(&text)
		d.log.Warn(text)
	}
}

// file writes a record: to a temporary name first, so that whoever reads the file
// finds all of the old one or all of the new one.
func (d *Dir) file(r *Record) error {
	r.Written, r.Uptime = time.Now(), proc.Uptime()
	// A time that was taken before the clock was set must not be told by it.
	r.State = r.State.Moved(func(t time.Time) time.Time { return r.Written.Add(t.Sub(r.Written)) })
	b, err := r.encode(make([]byte, 0, 1024))
	if err != nil {
		return err
	}
	temp := "." + r.Service
	fd, err := d.create(temp)
	if err != nil {
		return err
	}
	for len(b) > 0 && err == nil {
		var n int
		if n, err = unix.Write(fd, b); err == unix.EINTR {
			err = nil
		}
		b = b[max(n, 0):]
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err == nil {
		err = unix.Renameat(d.fd, temp, d.fd, r.Service+suffix)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temp, 0) // of no use, and the disk may be full
	}
	return err
}

// create makes a file. One that has the name is of a podnotify that was killed.
func (d *Dir) create(name string) (fd int, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	fd, err = unix.Openat(d.fd, name, flags, 0o600)
	if err == unix.EEXIST {
		if err = unix.Unlinkat(d.fd, name, 0); err == nil {
			fd, err = unix.Openat(d.fd, name, flags, 0o600)
		}
	}
	return fd, err
}

const suffix = ".json"

// Read reads the record of a service as of now: nil if there is none. A file that
// cannot be used is set aside; the error says why, and where it is.
func (f *File) Read() (*Record, error) {
	name := f.name + suffix
	b, err := f.d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r *Record
	if err == nil {
		r, err = Decode(b, f.name)
	}
	if err == nil {
		r.rebase(time.Now(), proc.Uptime())
		return r, nil
	}
	path := filepath.Join(f.d.path, name)
	if e := unix.Renameat(f.d.fd, name, f.d.fd, name+".bad"); e != nil {
		return nil, fmt.Errorf("cannot use state file %s: %w; it cannot be set aside either: %w", path, err, e)
	}
	return nil, fmt.Errorf("cannot use state file %s: %w; it was set aside as %s.bad", path, err, name)
}

func (d *Dir) read(name string) ([]byte, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch err {
	case nil:
	case unix.ELOOP:
		return nil, errors.New("it is a symbolic link")
	default:
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is no regular file")
	case int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("it belongs to uid %d", st.Uid)
	case st.Size > sizeMost:
		return nil, fmt.Errorf("it has %d bytes", st.Size)
	}
	return io.ReadAll(io.LimitReader(file, sizeMost))
}

// Look finds out what is true now of what a record names. The handle is the living
// main process, nil if there is none.
func (f *File) Look(fs proc.FS, r *Record) (World, *proc.Handle) {
	w := World{Boot: f.d.boot}
	if r.Main.PID <= 1 { // none, or in a PID namespace that is not visible from here: it cannot be found again
		return w, nil
	}
	h, err := fs.OpenID(r.Main.ID)
	if err != nil {
		return w, nil
	}
	c, err := fs.Container(r.Main.PID)
	if err != nil || h.Ended() { // the number was its own only while it lived
		h.Close()
		return w, nil
	}
	w.Main = Process{ID: h.ID(), Inode: h.Inode(), Container: c}
	return w, h
}

// Remove removes the file, also after Close of the directory: what it told is over.
func (f *File) Remove() { _ = os.Remove(filepath.Join(f.d.path, f.name+suffix)) }

// Decode reads a record of a service.
func Decode(b []byte, service string) (*Record, error) {
	if len(b) == 0 {
		return nil, errors.New("it is empty")
	}
	r := &Record{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if err := r.validate(service); err != nil {
		return nil, err
	}
	return r, nil
}

// bare is the reason without the operation and path that os puts around it.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
