package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
	"github.com/podnotify/podnotify/stopwatch"
)

// Bounds of what is kept for containers that are not known yet: a daemon may speak
// before its runtime's word of it has come to us.
const (
	lettersKept = 1024
	lettersEach = 64               // of one container
	letterAge   = 10 * time.Second // also of what waits on a container's own socket
)

// routesKept bounds how many senders are remembered.
const routesKept = 8192

// Node is a host, and the containers on it that are served: one socket for all of
// them. The sender's cgroup tells the container, as systemd does it. Nothing runs for
// a container that has nothing to say: no goroutine, no timer.
//
// What containers there are is somebody else's to find out, see [Tenant].
type Node struct {
	fs      proc.FS
	log     *slog.Logger
	ln      *notify.Listener
	self    int
	own     proc.Container
	ownID   uint64      // our cgroup's number
	alive   atomic.Bool // Run runs
	serves  sync.WaitGroup
	since   uint64 // when the socket was bound, clock ticks since boot
	sampler *stopwatch.Sampler
	newest  *proc.Newest
	unified string // where cgroups are mounted; empty: not here

	// hearing is held while datagrams are applied, and while it changes whose they
	// are. It is taken before any service's lock.
	hearing timed
	routes  map[int]route
	letters []letter
	expire  *time.Timer
	current bool          // see Connected
	age     time.Duration // letterAge

	mu      sync.Mutex // leaf: nobody waits on anything under it
	tenants map[*Tenant]bool
	cgroups map[string]held
	below   map[string]*Tenant // of other cgroups that were looked up: nil is nobody
	numbers map[uint64]*Tenant // by the number of the cgroup in the unified hierarchy
	seeking int
	dropped map[string]uint64
	named   map[string]bool // whose drops the log has named
	renamed time.Time       // when named was begun anew
}

// timed is a mutex that tells for how long it has been held.
type timed struct {
	mu    sync.Mutex
	since atomic.Int64 // nanoseconds after began; 0: nobody has it
}

// began is where monotonic time is counted from.
var began = time.Now()

func (m *timed) Lock() {
	m.mu.Lock()
	m.since.Store(int64(time.Since(began)))
}

func (m *timed) Unlock() {
	m.since.Store(0)
	m.mu.Unlock()
}

func (m *timed) held() time.Duration {
	if t := m.since.Load(); t != 0 {
		return time.Since(began) - time.Duration(t)
	}
	return 0
}

// held is a container's cgroup and whose it is.
type held struct {
	tenant *Tenant
	ctr    proc.Container
}

// route is whose process a sender is. The inode of its pidfd tells it from the next
// that gets its number.
type route struct {
	inode  uint64
	tenant *Tenant
}

// letter is a datagram whose container is not known yet.
type letter struct {
	packet *notify.Packet
	from   proc.Container
	at     time.Time
}

// Tenant is one container of a node, and its service. The container may come and go;
// what is known of it stays until it is removed.
type Tenant struct {
	*Service
	node *Node

	gen     atomic.Uint64
	recalls sync.Once
	file    *journal.File
	refused atomic.Bool // it cannot be served
	seeking bool        // of node.mu: its processes are looked out for
	cgid    uint64      // of node.mu: in node.numbers

	mu    sync.Mutex     // leaf
	entry proc.ID        // the container's first process; zero before and after
	depth int            // of its PID namespace: 1 is ours
	ctr   proc.Container // written under node.hearing, too
	last  int            // the first process before this one, of whose end we know
	spent time.Time      // up to when searches are paid for, see among
	oom   time.Time      // when it ran out of memory
	met   chan struct{}  // closed when its own socket is heard again; nil: it is
}

// NewNode binds the socket of all containers, with mode. Nothing is heard before Run.
func NewNode(fs proc.FS, address string, mode fs.FileMode, log *slog.Logger) (*Node, error) {
	n := &Node{
		fs: fs, log: log, self: os.Getpid(), age: letterAge,
		routes:  map[int]route{},
		tenants: map[*Tenant]bool{},
		cgroups: map[string]held{},
		below:   map[string]*Tenant{},
		numbers: map[uint64]*Tenant{},
		dropped: map[string]uint64{},
		named:   map[string]bool{},
	}
	var err error
	if n.own, err = fs.Cgroup(n.self); err != nil {
		return nil, fmt.Errorf("cannot read our own cgroup: %w", err)
	}
	if h, err := fs.Open(n.self); err == nil {
		n.ownID, _ = h.CgroupID()
		h.Close()
	}
	if n.newest, err = fs.Newest(); err != nil {
		return nil, err
	}
	n.unified = fs.Unified()
	if n.ln, err = notify.Listen(notify.Config{Address: address, Mode: mode}); err != nil {
		n.newest.Close()
		return nil, err
	}
	n.since = uint64(proc.Uptime() / clockTick)
	n.expire = time.AfterFunc(time.Hour, n.forget)
	n.expire.Stop()
	n.sampler = stopwatch.NewSampler(n.report)
	n.sampler.Sleep = stopwatch.NewSleep()
	return n, nil
}

// Close gives the socket up, of a Node that is not run.
func (n *Node) Close() error { return errors.Join(n.ln.Close(), n.newest.Close()) }

// deafAfter is when what should take microseconds will not end any more. A busy
// machine may make seconds of them.
const deafAfter = 10 * time.Second

// Healthy returns why nothing is heard.
func (n *Node) Healthy() error {
	if !n.alive.Load() {
		return errors.New("nobody listens on " + n.ln.Env())
	}
	if d := n.hearing.held(); d > deafAfter {
		return fmt.Errorf("nobody is heard on %s: one piece of news has taken %v", n.ln.Env(), d.Round(time.Second))
	}
	return nil
}

// Connected tells whether it is current what containers there are. While it is not,
// what an unknown container says is kept for however long that takes, up to the same
// number: who would claim it cannot. It is not at first.
func (n *Node) Connected(yes bool) {
	n.hearing.Lock()
	defer n.hearing.Unlock()
	if yes == n.current {
		return
	}
	n.current = yes
	now := time.Now()
	for i := range n.letters {
		n.letters[i].at = now
	}
	if n.expire.Stop(); yes && len(n.letters) > 0 {
		n.expire.Reset(n.age)
	}
}

// Run hears what containers say until ctx is done. It ends the services.
func (n *Node) Run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var work sync.WaitGroup
	var sampled error
	work.Go(func() {
		defer end()
		sampled = unlessDone(ctx, n.sampler.Run(ctx))
	})
	n.alive.Store(true)
	heard := n.hear(ctx)
	n.alive.Store(false)
	end()
	work.Wait()
	for _, t := range n.all() {
		t.Remove()
	}
	n.serves.Wait()
	n.expire.Stop()
	n.hearing.Lock()
	for _, l := range n.letters {
		l.packet.Close()
	}
	n.letters = nil
	n.hearing.Unlock()
	return errors.Join(heard, sampled, n.Close())
}

func (n *Node) hear(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.ln.Wait(ctx); err != nil {
			return unlessDone(ctx, fmt.Errorf("cannot receive for this node: %w", err))
		}
		for again := true; again; {
			var err error
			if again, err = n.drain(batch); err != nil {
				return fmt.Errorf("cannot receive for this node: %w", err)
			}
			if again {
				notify.Yield()
			}
		}
	}
	return nil
}

func (n *Node) drain(most int) (again bool, err error) {
	n.hearing.Lock()
	defer n.hearing.Unlock()
	_, again, err = n.ln.Drain(n, most)
	return again, err
}

// catchUp applies what was said before something else happened, whoever said it, and
// not what is said meanwhile: that may never end. An error of the socket is the
// receiver's to report.
func (n *Node) catchUp() { _, _ = n.drain(n.ln.Backlog()) }

// Env is the path of the socket, on the host.
func (n *Node) Env() string { return n.ln.Env() }

// Unclaimed counts the datagrams that no container's service has heard, by reason.
func (n *Node) Unclaimed() map[string]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.dropped)
}

func (n *Node) all() []*Tenant {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*Tenant, 0, len(n.tenants))
	for t := range n.tenants {
		out = append(out, t)
	}
	return out
}

// Packet implements notify.Handler.
func (n *Node) Packet(p *notify.Packet) {
	if p.Pidfd < 0 && n.ln.HasPidfd() {
		// A number alone may be another's by now, of another container. Who has used up
		// our descriptors must not have made it so.
		n.drop(dropNoPidfd, p.From, proc.Container{})
		return
	}
	t, from := n.whose(p)
	if t != nil {
		t.take(p)
		return
	}
	if p.Message.Has(notify.FlagBarrier) && !n.owes(from) {
		return // released: nothing of this sender waits
	}
	if from.Cgroup == "" || from.Cgroup == n.own.Cgroup || !n.keep(p, from) {
		n.drop(dropStranger, p.From, from)
	}
}

// Dropped implements notify.Handler.
func (n *Node) Dropped(d notify.Drop, from notify.Sender) {
	c, err := n.fs.Cgroup(from.PID)
	if err != nil || from.PID == 0 {
		n.drop(d.String(), from, c)
		return
	}
	if t := n.holder(c); t != nil {
		t.Service.mu.Lock()
		t.Dropped(d, from)
		t.Service.mu.Unlock()
		return
	}
	n.drop(d.String(), from, c)
}

// take gives the service a datagram of its container.
func (t *Tenant) take(p *notify.Packet) {
	t.Service.mu.Lock()
	defer t.Service.mu.Unlock()
	if !t.closed {
		t.Packet(p)
		t.settle()
	}
}

// whose finds out which container a sender is in. It is nil for one that is not known
// (yet), with the cgroup, which is empty if nobody can tell any more.
func (n *Node) whose(p *notify.Packet) (*Tenant, proc.Container) {
	if p.From.PID == 0 {
		return nil, proc.Container{} // not on a host, which sees all
	}
	var inode uint64
	if p.Pidfd >= 0 {
		inode = proc.Inode(p.Pidfd)
	}
	if r, ok := n.routes[p.From.PID]; ok && r.inode == inode && inode != 0 {
		return r.tenant, proc.Container{}
	}
	c, err := n.fs.Cgroup(p.From.PID)
	if err == nil && p.Pidfd >= 0 && !proc.Names(p.Pidfd) {
		err = proc.ErrGone // and what was read is maybe a stranger's
	}
	if st, e := n.fs.Stat(p.From.PID); err != nil || e != nil || st.Ending() {
		return n.whoseDead(p), proc.Container{}
	}
	t := n.holder(c)
	if t != nil && inode != 0 {
		if len(n.routes) >= routesKept {
			clear(n.routes)
		}
		n.routes[p.From.PID] = route{inode, t}
	}
	return t, c
}

// whoseDead asks the kernel for the cgroup of a sender that is dead on arrival. It
// tells since Linux 6.15, in the unified hierarchy.
func (n *Node) whoseDead(p *notify.Packet) *Tenant {
	if p.Pidfd < 0 {
		return nil
	}
	id, ok := proc.CgroupOf(p.Pidfd)
	if !ok {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.numbers[id]
}

// holder is the tenant whose container has this cgroup, or one above it.
func (n *Node) holder(c proc.Container) *Tenant {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h, ok := n.cgroups[c.Cgroup]; ok {
		return h.tenant
	}
	t, known := n.below[c.Cgroup]
	if known {
		return t
	}
	for _, h := range n.cgroups {
		if h.ctr.Holds(c) {
			t = h.tenant
		}
	}
	if len(n.below) >= routesKept {
		clear(n.below)
	}
	n.below[c.Cgroup] = t
	return t
}

// owes reports whether a datagram of this container is kept.
func (n *Node) owes(from proc.Container) bool {
	for _, l := range n.letters {
		if l.from == from {
			return true
		}
	}
	return false
}

// keep keeps a datagram until its container is known.
func (n *Node) keep(p *notify.Packet, from proc.Container) bool {
	same := 0
	for _, l := range n.letters {
		if l.from == from {
			same++
		}
	}
	if len(n.letters) >= lettersKept || same >= lettersEach {
		return false
	}
	if len(n.letters) == 0 && n.current {
		n.expire.Reset(n.age)
	}
	if len(p.FDs) != 1 || !(p.Message.BarrierOnly() && notify.IsPipe(p.FDs[0]) || p.Message.Has(notify.FlagMainPIDFD)) {
		for _, fd := range p.TakeFDs() { // who sends hundreds must not use up our own
			notify.Dismiss(fd)
		}
	}
	n.letters = append(n.letters, letter{p.Detach(), from, time.Now()})
	return true
}

// forget drops what nobody has claimed.
func (n *Node) forget() {
	n.hearing.Lock()
	defer n.hearing.Unlock()
	if !n.current {
		return
	}
	now := time.Now()
	for len(n.letters) > 0 && now.Sub(n.letters[0].at) >= n.age {
		l := n.letters[0]
		n.letters = n.letters[1:]
		n.drop(dropStranger, l.packet.From, l.from)
		l.packet.Close()
	}
	if len(n.letters) > 0 {
		n.expire.Reset(n.age - now.Sub(n.letters[0].at))
	} else {
		n.letters = nil
	}
}

// deliver hands a container what it said before it was known. hearing is held.
func (n *Node) deliver(t *Tenant) {
	var rest []letter
	for _, l := range n.letters {
		if !t.ctr.Holds(l.from) {
			rest = append(rest, l)
			continue
		}
		t.take(l.packet)
		l.packet.Close() // releases a barrier
	}
	n.letters = rest
}

// renameAfter is when the log may name again, at the earliest, whom it has named: all
// but so many, or containers that come and go would fill our memory, or the log.
const renameAfter = time.Minute

// drop counts a datagram that no service hears, and names each container once.
func (n *Node) drop(reason string, from notify.Sender, c proc.Container) {
	n.mu.Lock()
	n.dropped[reason]++
	key := reason + c.Cgroup
	if now := time.Now(); len(n.named) >= strangersNamed && now.Sub(n.renamed) > renameAfter {
		clear(n.named)
		n.renamed = now
	}
	known := n.named[key] || len(n.named) >= strangersNamed
	if !known {
		n.named[key] = true
	}
	n.mu.Unlock()
	if !known {
		go n.log.Warn("datagram of a container that is not served dropped", "reason", reason, "pid", from.PID, "uid", from.UID, "cgroup", c.Cgroup)
	}
}

// Add makes the service of a container, which need not run yet. Without an address of
// its own the service hears the node's socket only.
func (n *Node) Add(cfg Config, dep Deps) (*Tenant, error) {
	t := &Tenant{node: n, file: dep.Journal}
	dep.Journal = nil // until it is known what there is: see known
	dep.FS, dep.Scope, dep.Stops, dep.CatchUp = n.fs, t, n.sampler, n.catchUp
	dep.Awaiting, dep.Judged, dep.Among = t.awaits, t.judged, t.among
	dep.Deaf, dep.Met = t.deaf, t.meets
	t.met = make(chan struct{})
	s, err := New(cfg, dep)
	if err != nil {
		return nil, err
	}
	s.since = n.since
	t.Service = s
	n.mu.Lock()
	n.tenants[t] = true
	n.mu.Unlock()
	if s.ln == nil {
		s.attend()
		return t, nil
	}
	n.serves.Go(func() {
		if err := s.Serve(context.Background()); err != nil { // until it is removed
			n.log.Error("the container's own socket is of no more use", "service", cfg.Name, "error", err)
		}
	})
	return t, nil
}

// Refuse has the service say why it cannot be served, and hear nothing.
func (t *Tenant) Refuse(why string) {
	t.refused.Store(true)
	t.listen()
	s := t.Service
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts.Impossible = why
	s.warn("refused", why)
	s.stale.Store(true)
}

// NotStarted tells that the new task that was asked for could not be had: it counts as
// one that ended at once.
func (t *Tenant) NotStarted() {
	s := t.Service
	s.hear()
	defer s.mu.Unlock()
	if !s.closed {
		s.apply(lifecycle.Event{Kind: lifecycle.NotStarted})
		s.settle()
	}
}

// Remove ends the service of a container that is no more.
func (t *Tenant) Remove() {
	n := t.node
	t.look(false)
	n.hearing.Lock()
	for pid, r := range n.routes {
		if r.tenant == t {
			delete(n.routes, pid)
		}
	}
	t.leave()
	n.hearing.Unlock()
	n.mu.Lock()
	delete(n.tenants, t)
	n.mu.Unlock()
	t.Close()
}

// Created tells which process is the container's first, before it becomes the daemon
// or at any time later: by more than its number, which may be another's by now. From here
// on the container's words are the service's, those that it said already first.
func (t *Tenant) Created(id proc.ID) error {
	n := t.node
	if t.refused.Load() {
		return nil
	}
	pid := id.PID
	h, err := n.fs.OpenID(id)
	if err != nil {
		return err
	}
	defer h.Close()
	t.mu.Lock()
	known := t.entry == id
	t.mu.Unlock()
	if known {
		return nil
	}
	c, err := n.fs.Container(pid)
	if err != nil {
		return err
	}
	home, err := n.fs.Home(pid)
	if err != nil {
		return err
	}
	if c.Holds(n.own) || pid == 1 || pid == n.self {
		return fmt.Errorf("process %d is in our own cgroup, so nothing tells its container from the host", pid)
	}
	if !h.Holds() {
		return proc.ErrGone
	}
	t.bury()
	cgid, _ := h.CgroupID()

	n.hearing.Lock()
	defer n.hearing.Unlock()
	t.leave()
	t.mu.Lock()
	t.entry, t.depth, t.ctr, t.oom = h.ID(), len(home.Names), c, time.Time{}
	t.mu.Unlock()
	t.gen.Add(1)
	n.mu.Lock()
	n.cgroups[c.Cgroup] = held{t, c}
	clear(n.below)
	if cgid != 0 && cgid != n.ownID && n.numbers[cgid] == nil { // of version 1 it is the root's for all
		n.numbers[cgid], t.cgid = t, cgid
	}
	n.mu.Unlock()
	t.known()
	t.listen() // after it, or what is heard now would be forgotten
	n.deliver(t)
	return nil
}

// known takes up what the podnotify before this one knew, when it is known what there
// is now to prove it by, and before anything is heard. It may be called again.
func (t *Tenant) known() {
	t.recalls.Do(func() {
		t.Service.mu.Lock()
		defer t.Service.mu.Unlock()
		if !t.closed {
			t.mem.keep(t.file)
			t.recall()
			t.settle()
		}
	})
}

// leave takes the container's cgroup from it.
func (t *Tenant) leave() {
	n := t.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cgroups[t.ctr.Cgroup].tenant == t {
		delete(n.cgroups, t.ctr.Cgroup)
		clear(n.below)
	}
	if t.cgid != 0 && n.numbers[t.cgid] == t {
		delete(n.numbers, t.cgid)
	}
	t.cgid = 0
}

// bury applies the end of the last main process, if the kernel's word of it is still
// on its way: the next instance must not be mixed up with it.
func (t *Tenant) bury() {
	if h := t.eye.Load(); h != nil && h.Ended() {
		t.ended(h, lifecycle.Exit{})
	}
}

// Started tells that the container's first process has become the daemon, or what
// starts it: it is the main process until another is named.
func (t *Tenant) Started(id proc.ID) error {
	if err := t.Created(id); err != nil || t.refused.Load() {
		return err
	}
	t.mu.Lock()
	entry := t.entry
	t.mu.Unlock()
	h, err := t.node.fs.OpenID(entry)
	if err != nil {
		return err
	}
	s := t.Service
	st, err := s.dep.FS.Stat(id.PID)
	early := err == nil && runtimes(st.Comm)
	s.hear()
	defer s.mu.Unlock()
	if s.closed || s.cfg.Process != nil || s.m.Main() != (lifecycle.ProcID{}) || h.ID() == s.entry {
		// Of s.entry it was told before: its container lives on without the main process.
		h.Close()
	} else {
		s.elected = true
		s.adopt(h)
	}
	s.settle()
	t.look(s.awaiting)
	if s.main != nil && early {
		s.introduce(s.main, 1)
	}
	return nil
}

// introduce looks at a main process again that was still its runtime's when it was
// described: exec is announced nowhere.
func (s *Service) introduce(p *person, n int) {
	time.AfterFunc(firstLook<<n, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || s.main != p || p.h.Ended() {
			return
		}
		st, err := s.dep.FS.Stat(p.id.PID)
		if c, err := s.dep.FS.Container(p.id.PID); err == nil {
			s.describe(p, c)
		}
		s.settle()
		s.stale.Store(true)
		if err == nil && runtimes(st.Comm) && n < 10 {
			s.introduce(p, n+1)
		}
	})
}

// Exited tells how the container's first process ended, as its runtime says. What the
// kernel says of the main process is more exact and stands. With now it has just
// happened, so a process that nobody has seen was one that ended at once.
func (t *Tenant) Exited(pid int, exit lifecycle.Exit, now bool) {
	if t.Outlived(pid) {
		return
	}
	t.mu.Lock()
	id := t.entry
	unseen := id.PID != pid
	told := unseen && (!now || t.last == pid) // containerd tells of some ends twice
	t.last = pid
	t.mu.Unlock()
	if told || pid <= 0 || t.refused.Load() {
		return
	}
	t.bury()
	s := t.Service
	s.hear()
	if !s.closed {
		// It may have been created, and ended before it was known to have started: no main
		// process was of its container, and the last one that ended was of another.
		x := s.m.LastExit()
		brief := now && s.entry != id && (x == nil || x.Who != lifecycle.ProcID(id))
		if (unseen || brief) && s.m.Main() == (lifecycle.ProcID{}) {
			if unseen {
				id = proc.ID{PID: pid, Start: uint64(proc.Uptime() / clockTick)}
			}
			s.apply(lifecycle.Event{Kind: lifecycle.Found, Who: lifecycle.ProcID(id)})
		}
		s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: lifecycle.ProcID(id), Exit: t.judged(exit)})
		s.settle()
	}
	s.mu.Unlock()
	t.Ended()
}

// Outlived reports whether pid was the first process of a task before the one that runs:
// containerd may tell of an end late, and twice.
func (t *Tenant) Outlived(pid int) bool {
	t.mu.Lock()
	id := t.entry
	t.mu.Unlock()
	return id.PID != pid && t.node.lives(id)
}

// lives reports whether a container's first process does.
func (n *Node) lives(id proc.ID) bool {
	if id.PID == 0 {
		return false
	}
	st, err := n.fs.Stat(id.PID)
	return err == nil && st.ID() == id && !st.State.Dead()
}

// Ended tells that the container does not run any more. What is said on its own socket
// from here on is the next task's, and waits for containerd's word of that.
func (t *Tenant) Ended() {
	t.look(false)
	t.node.catchUp() // the last words, while it is known whose they are
	t.node.hearing.Lock()
	t.known()
	t.leave()
	t.node.hearing.Unlock()
	s := t.Service
	s.hear() // likewise
	t.mu.Lock()
	if t.entry.PID != 0 {
		t.last = t.entry.PID
	}
	t.entry = proc.ID{}
	if t.met == nil && !t.refused.Load() {
		t.met = make(chan struct{})
	}
	t.mu.Unlock()
	t.gen.Add(1)
	if !s.closed {
		s.settle()
	}
	s.mu.Unlock()
}

// deaf reports whether nothing on the container's own socket is heard: there is no first
// process yet to tell its words from a stranger's.
func (t *Tenant) deaf() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.met != nil
}

// listen has the container's own socket heard.
func (t *Tenant) listen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.met != nil {
		close(t.met)
		t.met = nil
	}
}

// meets waits until the container's own socket is heard. Who has waited for as long as a
// letter is kept, with containerd there to tell, is nobody's: that no process can be told
// of must not hold its senders for ever.
func (t *Tenant) meets(ctx context.Context) {
	current := func() (bool, time.Duration) {
		t.node.hearing.Lock()
		defer t.node.hearing.Unlock()
		return t.node.current, t.node.age
	}
	for {
		t.mu.Lock()
		met := t.met
		t.mu.Unlock()
		if met == nil {
			return
		}
		before, age := current()
		select {
		case <-met:
		case <-ctx.Done():
			return
		case <-time.After(age):
			if now, _ := current(); before && now {
				t.mu.Lock()
				if t.met == met { // or that wait is over, and the next has begun
					close(t.met)
					t.met = nil
				}
				t.mu.Unlock()
			}
		}
	}
}

// oomSpan is how far apart the word that memory ran out and that of the end may come.
const oomSpan = 10 * time.Second

// OutOfMemory tells that the kernel has killed in the container for want of memory.
func (t *Tenant) OutOfMemory() {
	now := time.Now()
	t.mu.Lock()
	t.oom = now
	t.mu.Unlock()
	s := t.Service
	s.hear()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.tell("oom", "the container ran out of memory, and the kernel killed in it")
	if x := s.m.LastExit(); x != nil && x.Signal == int(unix.SIGKILL) && now.Sub(x.At) < oomSpan {
		exit := x.Exit
		exit.OOM = true
		s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: x.Who, Exit: exit})
	}
}

// judged is an exit with what is known of the memory.
func (t *Tenant) judged(exit lifecycle.Exit) lifecycle.Exit {
	t.mu.Lock()
	defer t.mu.Unlock()
	exit.OOM = exit.Signal == int(unix.SIGKILL) && !t.oom.IsZero() && time.Since(t.oom) < oomSpan
	return exit
}

// Member implements Scope: the container's first process and its descendants, also
// those that process 1 of the container's PID namespace has adopted. What exec brought
// in is none of them.
func (t *Tenant) Member(pid int) bool {
	t.mu.Lock()
	entry, depth, ctr := t.entry, t.depth, t.ctr
	t.mu.Unlock()
	if entry.PID == 0 || pid <= 1 || pid == t.node.self {
		return false
	}
	scarce := t.dep.Descriptors
	if c, err := t.node.fs.Cgroup(pid); scarce.Exhausted(err) || err != nil || !ctr.Holds(c) {
		return false
	}
	st, err := t.node.fs.Stat(pid)
	for range 1024 {
		if scarce.Exhausted(err) || err != nil || st.Kernel() {
			return false
		}
		if st.ID() == entry {
			return true
		}
		if st.PPID <= 1 {
			return false
		}
		if depth > 1 {
			if names, err := t.node.fs.NSpid(st.PPID); err == nil && len(names) == depth && names[depth-1] == 1 && st.PPID != entry.PID {
				return true
			}
		}
		st, err = above(t.node.fs, st)
	}
	return false
}

// Entry implements Scope.
func (t *Tenant) Entry(pid int) (int, bool) {
	if !t.Member(pid) {
		return 0, false
	}
	t.mu.Lock()
	entry := t.entry
	t.mu.Unlock()
	st, err := t.node.fs.Stat(entry.PID)
	return entry.PID, err == nil && st.ID() == entry // or its number is another's by now
}

// A container may have looked for a process by its number once a second, and so many
// times at once before.
const (
	searchEvery = time.Second
	searchBurst = 10
)

var errOften = errors.New("this container has had processes looked for by their numbers too often; it may once a second")

// among lists the processes to look at for one that the container calls by a number.
// All others wait to be heard meanwhile, so it may not ask for that as often as it likes,
// and where that can be told only its own processes are looked at.
func (t *Tenant) among() ([]int, error) {
	now := time.Now()
	t.mu.Lock()
	ctr := t.ctr
	if free := now.Add(-searchBurst * searchEvery); t.spent.Before(free) {
		t.spent = free
	}
	often := t.spent.After(now)
	if !often {
		t.spent = t.spent.Add(searchEvery)
	}
	t.mu.Unlock()
	if often {
		return nil, errOften
	}
	if pids, err := ctr.Processes(t.node.unified); err == nil {
		return pids, nil
	}
	return t.node.fs.Pids()
}

// Generation implements Scope. It is never 0.
func (t *Tenant) Generation() uint64 { return t.gen.Load() + 1 }

// awaits is told, under the service's lock, whether a process or a stop matters.
func (t *Tenant) awaits(yes bool) {
	t.mu.Lock()
	runs := t.entry.PID != 0
	t.mu.Unlock()
	t.look(yes && runs)
}

// look begins or ends looking out for the container's processes. Most containers
// have nothing that would have to be looked for: what speaks is heard.
func (t *Tenant) look(yes bool) {
	if e := t.Service; e != nil { // nil while it is made
		x := e.cfg.Policy.Expect
		yes = yes && (x == lifecycle.ExpectStop || x == lifecycle.ExpectAuto || e.cfg.Process != nil)
	} else {
		yes = false
	}
	n := t.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if yes == t.seeking {
		return
	}
	t.seeking = yes
	if yes {
		n.seeking++
	} else {
		n.seeking--
	}
	switch {
	case yes: // anew: it has not been offered what others saw arrive
		n.sampler.Seek(n.newest.Read, n.arrived)
	case n.seeking == 0:
		n.sampler.Rest()
	}
}

// arrived is told of pid numbers that may be new. Only processes of containers that
// wait for one are looked at further.
func (n *Node) arrived(from, to int, all bool) {
	var pids []int
	if all {
		pids, _ = n.fs.Pids()
	} else {
		for pid := from; pid < to; pid++ {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		st, err := n.fs.Stat(pid)
		if err != nil || st.Kernel() || pid == n.self {
			continue
		}
		c, err := n.fs.Cgroup(pid)
		if err != nil || c.Cgroup == n.own.Cgroup {
			continue
		}
		if t := n.holder(c); t != nil && n.seeks(t) {
			t.offer(st)
		}
	}
}

func (n *Node) seeks(t *Tenant) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return t.seeking
}

// offer is told of a process that is new in the container, or may have become
// something else since.
func (t *Tenant) offer(st proc.Stat) {
	s := t.Service
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.awaiting || !t.Member(st.PID) {
		return
	}
	if s.cfg.Process != nil && s.m.Main() == (lifecycle.ProcID{}) {
		matches := func() bool {
			cmd, err := s.dep.FS.Cmdline(st.PID)
			return err == nil && s.cfg.Process.MatchString(cmd)
		}
		found, _ := glimpse(&s.inside, st.PID, insideWait, matches, func(found bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if found {
				s.adoptFound(st.ID())
				s.settle()
			}
		})
		if found {
			s.adoptFound(st.ID())
		}
	}
	if s.m.AwaitsStop(s.now()) && (s.sampled < sampledMost || st.State.Stopped()) {
		if p := s.meetID(st.ID()); p != nil && !p.sampled {
			s.judgeMember(p)
			s.sample(p)
		}
	}
	s.settle()
}

// adoptFound takes the process that select.process fits, if none was taken before.
func (s *Service) adoptFound(id proc.ID) {
	if s.closed || s.m.Main() != (lifecycle.ProcID{}) {
		return
	}
	h, err := s.openIf(id.PID, func() bool {
		// The command line is not asked for again: that may take for ever.
		st, err := s.dep.FS.Stat(id.PID)
		return err == nil && st.ID() == id && s.dep.Scope.Member(id.PID)
	})
	if err == nil {
		s.elected = true
		s.adopt(h)
	}
}

// report is told of stops by the sampler.
func (n *Node) report(x stopwatch.Transition) {
	for _, t := range n.all() {
		if t.samples(x.Who) {
			t.Observe(x)
		}
	}
}

// attend is Serve for a service without a socket of its own: nothing of it runs while
// nothing happens.
func (s *Service) attend() {
	s.listening(true)
	s.reconsider()
}
