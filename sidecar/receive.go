package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// unknownKept bounds the unknown keys whose names are kept for status.
const unknownKept = 32

// unknownLongest is the longest name that is kept, in bytes.
const unknownLongest = 128

// strangersNamed bounds how many senders whose datagrams were dropped are named
// in the log, once each.
const strangersNamed = 256

type stranger struct {
	reason string
	pid    int
}

// Reasons for dropping a datagram, besides those of package notify.
const (
	dropAccess    = "access"       // the sender is known, and access does not admit it
	dropStranger  = "not-admitted" // the sender is not a process of the service
	dropInvisible = "invisible"    // the sender's PID namespace is not visible from here
	dropBarrier   = "barrier"      // BARRIER=1 with other lines, or not with one descriptor
	dropNoPidfd   = "no-pidfd"     // on a node: there is nothing but the sender's number

	dropNoDescriptor = "no-descriptor" // there is none left to hold the sender by
)

// Dropped implements notify.Handler: a datagram that is no message.
func (s *Service) Dropped(d notify.Drop, from notify.Sender) {
	s.facts.Datagrams++
	s.drop1(d.String(), from)
}

func (s *Service) drop1(reason string, from notify.Sender) {
	s.dropped[reason]++
	s.stale.Store(true)
	key := stranger{reason, from.PID}
	if s.strangers[key] || len(s.strangers) >= strangersNamed {
		return
	}
	s.strangers[key] = true
	args := []any{"reason", reason, "pid", from.PID, "uid", from.UID}
	cure := s.cure(reason)
	if st, err := s.dep.FS.Stat(from.PID); err == nil { // or it has ended
		args = append(args, "comm", st.Comm)
	} else if reason == dropStranger && s.dep.Hides != "" {
		if cure = hidden(s.dep.Hides); s.main == nil {
			s.facts.Impossible = fmt.Sprintf("process %d, which speaks, cannot be seen: %s", from.PID, cure)
		}
	}
	s.say(slog.LevelWarn, "datagram dropped", append(args, "cure", cure)...)
}

// shutOut counts the datagrams whose senders are not admitted.
func (s *Service) shutOut() uint64 { return s.dropped[dropAccess] + s.dropped[dropStranger] }

// cure says what would have a datagram heard.
func (s *Service) cure(reason string) string {
	switch {
	case reason == dropAccess && s.access != s.cfg.Access:
		return fmt.Sprintf("the daemon said NOTIFYACCESS=%v, which shuts this sender out", s.access)
	case reason == dropAccess:
		return fmt.Sprintf("notify.access is %v; all hears every process of the service", s.access)
	}
	return cures[reason]
}

// cures are those that hang on nothing else.
var cures = map[string]string{
	dropStranger:                         "select.container or select.process takes it in; notify.access any hears everybody",
	dropInvisible:                        "shareProcessNamespace: true, or notify.access any",
	dropNoDescriptor:                     "podnotify needs more open files (ulimit -n)",
	dropBarrier:                          "BARRIER=1 goes alone, with one descriptor",
	notify.DropTooLong.String():          "the sender may send 4096 bytes at most",
	notify.DropNUL.String():              "the sender may put a NUL only at the very end",
	notify.DropControlTruncated.String(): "the sender may attach 253 descriptors at most; podnotify may need more open files (ulimit -n)",
	notify.DropNoCredentials.String():    "the kernel told nothing of the sender; its next datagram is heard",
}

// Packet implements notify.Handler. It runs under the service's lock, and what
// it does is visible to Look before it returns: that is when a barrier's
// descriptor is closed.
func (s *Service) Packet(p *notify.Packet) {
	s.facts.Datagrams++
	s.stale.Store(true)
	m := &p.Message
	if m.Has(notify.FlagBarrier) {
		// Handled before anything else and for anyone. With other lines beside
		// it, everything is ignored (systemd does the same).
		if !m.BarrierOnly() || len(p.FDs) != 1 {
			s.drop1(dropBarrier, p.From)
		} else if s.holdBarrier(p.FDs[0]) {
			p.TakeFDs()
		}
		return
	}
	who, ok := s.sender(p)
	if !ok {
		return
	}
	s.speak(m, who, p)
}

// sender finds out who sent a datagram and whether its words count. Of a process
// that is dead and cannot be held the person has a number and no handle.
func (s *Service) sender(p *notify.Packet) (person, bool) {
	if s.access == AccessNone {
		s.drop1(dropAccess, p.From)
		return person{}, false
	}
	if p.From.PID == 0 {
		return s.invisible(p)
	}
	if q := s.people[p.From.PID]; q != nil && (p.Pidfd < 0 && !q.h.Ended() || p.Pidfd >= 0 && q.h.Same(p.Pidfd)) {
		s.touch(q)
		return *q, s.admits(q, p)
	}
	if s.main != nil && p.Pidfd >= 0 && s.main.h.Same(p.Pidfd) { // its number has passed on already
		return *s.main, s.admits(s.main, p)
	}
	h, err := s.open(p)
	if s.dep.Descriptors.Exhausted(err) {
		s.drop1(dropNoDescriptor, p.From) // it lives, but who it is cannot be known
		return person{}, false
	}
	if s.access != AccessAny && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) { // procfs hides what it is
		s.drop1(dropStranger, p.From)
		return person{}, false
	}
	if err != nil || h.Ended() {
		return s.departed(h, p)
	}
	q := s.meet(p.From.PID, h)
	return *q, s.admits(q, p)
}

// departed is a sender that is dead on arrival. It is somebody all the same,
// because it may have said more than this: a server that says READY=1 and
// STOPPING=1 is not the helper that says one of them. Where nothing but a number
// tells who it was (no pidfd, and reaped) the number has to do.
func (s *Service) departed(h *proc.Handle, p *notify.Packet) (person, bool) {
	q := s.people[p.From.PID]
	if q != nil && q.h.Ended() && (h == nil || h.ID().Start == 0 && h.Inode() == 0) {
		if h != nil {
			h.Close()
		}
		return *s.touch(q), s.admits(q, p)
	}
	switch ok := s.admitsDead(h, p); {
	case h == nil:
		return person{id: lifecycle.ProcID{PID: p.From.PID}}, ok
	case !ok:
		h.Close()
		return person{}, false
	}
	return *s.meet(p.From.PID, h), true
}

// open makes a handle of a datagram's sender.
func (s *Service) open(p *notify.Packet) (*proc.Handle, error) {
	if p.Pidfd >= 0 {
		h, err := s.dep.FS.FromPidfd(p.Pidfd, p.From.PID)
		if err == nil {
			p.TakePidfd()
		}
		if !s.dep.Descriptors.Exhausted(err) {
			return h, err
		}
		if s.tenant() {
			return nil, err // whose the number is cannot be known
		}
		unix.Close(p.TakePidfd())
	}
	return s.openPID(p.From.PID)
}

// openPID makes a handle of a process. Where there is no descriptor left for it, those
// who have said nothing for the longest time are given up.
func (s *Service) openPID(pid int) (*proc.Handle, error) {
	for {
		h, err := s.dep.FS.Open(pid)
		if !s.dep.Descriptors.Exhausted(err) || !s.spare() {
			return h, err
		}
	}
}

// openIf is openPID for what was found out about the number: is is asked again once the
// process is held. Until then the number may have passed on, within one clock tick even,
// so that the start time does not tell.
func (s *Service) openIf(pid int, is func() bool) (*proc.Handle, error) {
	h, err := s.openPID(pid)
	if err == nil && !(is() && h.Holds()) {
		h.Close()
		err = proc.ErrReused
	}
	return h, err
}

// invisible is a sender in a PID namespace we cannot see. Only "any" hears it,
// and then it is known by its pidfd alone.
func (s *Service) invisible(p *notify.Packet) (person, bool) {
	if s.access == AccessAny && p.Pidfd >= 0 {
		if s.main != nil && s.main.h.Same(p.Pidfd) {
			return *s.main, true
		}
		if h, err := s.dep.FS.FromPidfd(p.Pidfd, 0); err == nil {
			p.TakePidfd()
			if q := s.find(idOf(h)); q != nil {
				h.Close()
				return *s.touch(q), true
			}
			if h.Ended() {
				h.Close()
				return person{}, s.m.Main() != (lifecycle.ProcID{})
			}
			return *s.meet(-int(h.ID().Start%math.MaxInt32)-1, h), true
		}
	}
	s.drop1(dropInvisible, p.From)
	if s.main == nil {
		s.facts.Impossible = "its datagrams come from a PID namespace that is not visible from here; " +
			"add shareProcessNamespace: true, or set notify.access: any"
	}
	return person{}, false
}

// admits judges a live sender by the access in force.
func (s *Service) admits(q *person, p *notify.Packet) bool {
	if q == s.main {
		return true
	}
	switch s.access {
	case AccessMain, AccessExec:
		if s.access == AccessExec && s.dep.Started != nil && s.dep.Started(proc.ID(q.id)) {
			return true
		}
		if s.main == nil && s.isMember(q) {
			if entry, ok := s.dep.Scope.Entry(q.id.PID); ok && entry == q.id.PID {
				return true // it is about to become the main process
			}
		}
		s.drop1(dropAccess, p.From)
		return false
	case AccessAny:
		return true
	}
	if !s.isMember(q) {
		switch {
		case q.generation == 0 && !s.ending(q):
			s.drop1(dropNoDescriptor, p.From) // who it is cannot be looked up
			return false
		case q.generation == 0: // dead before it could be judged
			return s.admitsDead(q.h, p)
		}
		s.drop1(dropStranger, p.From)
		return false
	}
	return true
}

// isMember judges a process once, and again when the answer may have changed.
// Of one that has ended nothing can be found out any more: what was known holds.
func (s *Service) isMember(q *person) bool {
	if g := s.generation(); q.generation != g {
		member, known := s.judge(q)
		if member || known && !s.ending(q) {
			q.member, q.generation = member, g
		}
	}
	return q.member
}

// judge asks the scope. It is not known what it says if it could not look for want of a
// descriptor, and nobody was left to be given up for one.
func (s *Service) judge(q *person) (member, known bool) {
	for s.dep.Scope != nil {
		before := s.dep.Descriptors.Times()
		switch member = s.dep.Scope.Member(q.id.PID); {
		case member, s.dep.Descriptors.Times() == before:
			return member, true
		case !s.spare():
			return false, false
		}
	}
	return true, true
}

// ending reports whether a process has ended or is about to: then what it is does
// not tell any more what it was.
func (s *Service) ending(q *person) bool {
	if q.h.Ended() {
		return true
	}
	st, err := s.dep.FS.Stat(q.id.PID)
	if err != nil || st.ID() != proc.ID(q.id) {
		return q.h.Ended() // reaped meanwhile
	}
	return st.Ending()
}

// admitsDead judges a sender that is dead on arrival: a helper such as
// systemd-notify. Its credentials stay true, its /proc is gone. It is refused
// if the kernel still tells its cgroup (6.15) and that is not the main
// process's; else it is believed, because this socket serves one service only.
func (s *Service) admitsDead(h *proc.Handle, p *notify.Packet) bool {
	if s.access == AccessMain || s.access == AccessExec {
		s.drop1(dropAccess, p.From)
		return false
	}
	if h != nil && s.main != nil && s.access == AccessAll {
		if theirs, ok := h.CgroupID(); ok && theirs != 0 {
			if ours, ok := s.main.h.CgroupID(); ok && ours != 0 && ours != theirs {
				s.drop1(dropStranger, p.From)
				return false
			}
		}
	}
	s.dropped["unattributed"]++ // not dropped: heard, from nobody we could name
	return true
}

// speak applies the lines of one message in systemd's order, whatever order
// they were sent in.
func (s *Service) speak(m *notify.Message, who person, p *notify.Packet) {
	if s.m.Main() == (lifecycle.ProcID{}) && s.main == nil {
		s.findFor(who)
	} else if s.elected && who.id.PID > 0 && who.id != s.mainID() && s.m.Phase() == lifecycle.Starting {
		s.reelect(who)
	}
	named := false
	if m.Has(notify.FlagMainPIDFD) {
		named = s.mainPIDFD(p)
	} else if v, ok := m.Value(notify.KeyMainPID); ok {
		id, hasID := m.Value(notify.KeyMainPIDFDID)
		named = s.mainPID(v, id, hasID, who, p.From.UID)
	}
	if who.mouthpiece {
		who.id = lifecycle.ProcID{}
	}
	if bad := news(m, who.id, named, s.give); bad != 0 {
		s.spoilt(bad)
	}
	if v, ok := m.Value(notify.KeyNotifyAccess); ok {
		s.setAccess(v)
	}
	if v, ok := m.Value(notify.KeyWatchdog); ok && string(v) == "1" {
		s.facts.Pings++
	}
	if m.Unknown() > 0 {
		s.unknown(m)
	}
	s.storeFDs(p)
	if len(p.FDs) > 0 {
		s.dropped["descriptors"] += uint64(len(p.FDs)) // closed, and counted
	}
	if who.h == nil && who.id.PID > 0 { // nothing will tell of its end
		s.apply(lifecycle.Event{Kind: lifecycle.Ended, Who: who.id})
	}
	if s.m.Main() != s.mainID() {
		s.setMain(s.m.Main())
	}
}

// bad counts a value that means nothing. One bad value never spoils the rest of
// its message.
func (s *Service) bad(key string) { s.dropped["bad-"+key]++ }

// spoilt counts every key whose value means nothing.
func (s *Service) spoilt(keys keySet) {
	for k := notify.Key(0); keys != 0; k, keys = k+1, keys>>1 {
		if keys&1 != 0 {
			s.bad(k.String())
		}
	}
}

// usec reads a time in microseconds. 0 and the largest number there is mean
// none.
func usec(v []byte) (time.Duration, bool) {
	n, err := notify.ParseUint(v)
	switch {
	case err != nil:
		return 0, false
	case n == math.MaxUint64:
		return 0, true
	case n > math.MaxInt64/1000:
		return math.MaxInt64, true
	}
	return time.Duration(n) * time.Microsecond, true
}

// keySet has a bit for every notify.Key.
type keySet uint32

// news gives apply what the lines of one message mean, after MAINPID and in
// systemd's order, whatever order they were sent in: the phase words (STOPPING
// before READY before RELOADING), then the texts and numbers, then the clocks. It
// returns the keys whose values mean nothing; they spoil nothing else.
func news(m *notify.Message, who lifecycle.ProcID, named bool, apply func(lifecycle.Event)) (bad keySet) {
	switch {
	case m.Has(notify.FlagStopping):
		apply(lifecycle.Event{Kind: lifecycle.StopWord, Who: who, Named: named})
	case m.Has(notify.FlagReady) && !m.Has(notify.FlagReloading):
		apply(lifecycle.Event{Kind: lifecycle.ReadyWord, Who: who, Named: named})
	case m.Has(notify.FlagReloading):
		var at int64 // when it began, if it says so
		if v, ok := m.Value(notify.KeyMonotonicUsec); ok {
			if n, err := notify.ParseUint(v); err == nil && n <= math.MaxInt64 {
				at = int64(n)
			} else {
				bad |= 1 << notify.KeyMonotonicUsec
			}
		}
		apply(lifecycle.Event{Kind: lifecycle.Reload, Who: who, Named: named, Number: at})
		if m.Has(notify.FlagReady) { // reloaded at once
			apply(lifecycle.Event{Kind: lifecycle.ReadyWord, Who: who, Named: named})
		}
	}
	if v, ok := m.Value(notify.KeyStatus); ok {
		apply(lifecycle.Event{Kind: lifecycle.Status, Who: who, Text: v})
	}
	if v, ok := m.Value(notify.KeyErrno); ok {
		if n, err := notify.ParseErrno(v); err == nil {
			apply(lifecycle.Event{Kind: lifecycle.Errno, Who: who, Number: int64(n)})
		} else {
			bad |= 1 << notify.KeyErrno
		}
	}
	if v, ok := m.Value(notify.KeyBusError); ok {
		apply(lifecycle.Event{Kind: lifecycle.BusError, Who: who, Text: v})
	}
	if v, ok := m.Value(notify.KeyVarlinkError); ok {
		apply(lifecycle.Event{Kind: lifecycle.VarlinkError, Who: who, Text: v})
	}
	if v, ok := m.Value(notify.KeyExtendTimeoutUsec); ok {
		if d, ok := usec(v); !ok {
			bad |= 1 << notify.KeyExtendTimeoutUsec
		} else if d > 0 {
			apply(lifecycle.Event{Kind: lifecycle.Extend, Who: who, Span: d})
		}
	}
	if v, ok := m.Value(notify.KeyWatchdog); ok {
		switch string(v) {
		case "1":
			apply(lifecycle.Event{Kind: lifecycle.Ping, Who: who})
		case "trigger":
			apply(lifecycle.Event{Kind: lifecycle.Trigger, Who: who})
		default:
			bad |= 1 << notify.KeyWatchdog
		}
	}
	if v, ok := m.Value(notify.KeyWatchdogUsec); ok {
		if d, ok := usec(v); ok {
			apply(lifecycle.Event{Kind: lifecycle.WatchdogEvery, Who: who, Span: d})
		} else {
			bad |= 1 << notify.KeyWatchdogUsec
		}
	}
	if m.Has(notify.FlagRestartReset) {
		apply(lifecycle.Event{Kind: lifecycle.ResetRespawns, Who: who})
	}
	return bad
}

func (s *Service) unknown(m *notify.Message) {
	for k := range m.UnknownKeys() {
		if n, ok := s.facts.UnknownKeys[string(k)]; ok || len(k) <= unknownLongest && len(s.facts.UnknownKeys) < unknownKept {
			s.facts.UnknownKeys[string(k)] = n + 1
		} else {
			s.facts.UnknownKeys["..."]++
		}
	}
}

// setAccess is NOTIFYACCESS=: it holds for the next datagram, until a new
// instance. A value that is none of systemd's falls back to the configured one.
func (s *Service) setAccess(v []byte) {
	a, ok := ParseAccess(string(v))
	if !ok || a == AccessAny {
		s.bad("NOTIFYACCESS")
		a = s.cfg.Access
	}
	s.access = a
}

// entryOf is the process that stands for the service by default, as far as the sender of
// a datagram tells. Of who has been reaped nothing is known but a number, which may be
// another's.
func (s *Service) entryOf(who person) (pid int, ok bool) {
	if pid, ok = who.id.PID, true; s.dep.Scope != nil {
		pid, ok = s.dep.Scope.Entry(pid)
	}
	return pid, ok && who.h != nil && who.h.Holds()
}

// findFor gives the service a main process when it is spoken for and has none:
// the one that stands for it by default, never whoever spoke.
func (s *Service) findFor(who person) {
	if who.id == (lifecycle.ProcID{}) {
		return
	}
	if who.id.PID == 0 { // known by its pidfd alone
		s.apply(lifecycle.Event{Kind: lifecycle.Found, Who: who.id})
		s.setMain(s.m.Main())
		return
	}
	pid, ok := s.entryOf(who)
	if !ok {
		p := s.find(who.id)
		if s.access != AccessAny || p == nil || p.h.Ended() {
			return
		}
		pid = p.key // it stands for itself
	}
	if p := s.people[pid]; p == nil || p.h.Ended() {
		h, err := s.openIf(pid, func() bool { entry, ok := s.entryOf(who); return ok && entry == pid })
		if err != nil {
			return
		}
		s.meet(pid, h)
	}
	s.elected = true
	s.apply(lifecycle.Event{Kind: lifecycle.Found, Who: s.people[pid].id})
	s.setMain(s.m.Main())
}

// reelect corrects a main process that was found by elimination, where no
// container boundary shows which it is, when another tree of processes turns out
// to be the one that speaks.
func (s *Service) reelect(who person) {
	if s.dep.Parent || s.dep.Scope == nil {
		return
	}
	pid, ok := s.entryOf(who)
	if !ok || pid == s.mainID().PID {
		return
	}
	if own, ok := s.dep.Scope.Entry(s.mainID().PID); ok && own == pid {
		return
	}
	if p := s.people[pid]; p == nil || p.h.Ended() {
		h, err := s.openIf(pid, func() bool { entry, ok := s.entryOf(who); return ok && entry == pid })
		if err != nil {
			return
		}
		s.meet(pid, h)
	}
	s.apply(lifecycle.Event{Kind: lifecycle.MainPID, Who: s.people[pid].id})
	s.setMain(s.m.Main())
}

// mainPID is MAINPID=: the number is the sender's, in its own PID namespace.
// It reports whether the main process is now the one named.
func (s *Service) mainPID(v, inode []byte, hasInode bool, who person, uid uint32) bool {
	n, err := notify.ParsePID(v)
	if err != nil {
		s.bad("MAINPID")
		return false
	}
	if s.main != nil && !hasInode && !s.main.h.Ended() &&
		(who.id == s.main.id && n == who.home.Inner() || n == s.main.id.PID && n == s.facts.InnerPID && len(who.home.Names) <= 1) {
		return true
	}
	if who.id.PID == 0 && who.h != nil {
		s.warn("mainpid", "MAINPID= of a process in a PID namespace that is not visible from here is ignored; add shareProcessNamespace: true")
		return false
	}
	p, err := s.named1(n, who, uid)
	if err == nil && hasInode {
		err = sameInode(p, inode)
	}
	if err != nil {
		s.bad("MAINPID")
		s.warn("mainpid", fmt.Sprintf("MAINPID=%d is ignored: %v", n, err))
		return false
	}
	return s.nameMain(p)
}

// sameInode is the guard against pid reuse that MAINPIDFDID gives: the inode of
// the process's pidfd. Before Linux 6.9 there is nothing to compare it with.
func sameInode(p *person, inode []byte) error {
	n, err := notify.ParseUint(inode)
	if err != nil {
		return errors.New("its MAINPIDFDID is no number")
	}
	if ino := p.h.Inode(); ino != 0 && ino != n {
		return proc.ErrReused
	}
	return nil
}

// mainPIDFD is MAINPIDFD=1: the one descriptor attached is a pidfd of the main
// process. It is taken, so FDSTORE=1 in the same datagram finds nothing; with
// none or more than one, nothing is done and MAINPID is not consulted either.
func (s *Service) mainPIDFD(p *notify.Packet) bool {
	if len(p.FDs) != 1 {
		s.bad("MAINPIDFD")
		return false
	}
	fd := p.TakeFDs()[0]
	h, err := s.dep.FS.FromPidfd(fd, 0)
	if err != nil {
		notify.Dismiss(fd)
	}
	if err == nil && (h.Ended() || h.ID().PID <= 1 || h.ID().PID == unix.Getpid()) {
		h.Close()
		err = errNotMember
	}
	if err != nil {
		s.bad("MAINPIDFD")
		s.warn("mainpid", fmt.Sprintf("MAINPIDFD=1 is ignored: %v", err))
		return false
	}
	q := s.meet(h.ID().PID, h)
	if !s.isMember(q) && !s.outside(p.From.UID) {
		s.bad("MAINPIDFD")
		s.warn("mainpid", fmt.Sprintf("MAINPIDFD=1 is ignored: %v", errNotMember))
		return false
	}
	return s.nameMain(q)
}

func (s *Service) nameMain(p *person) bool {
	s.elected = false
	if p != s.main {
		s.apply(lifecycle.Event{Kind: lifecycle.MainPID, Who: p.id})
		s.setMain(s.m.Main())
	}
	return true
}

// outside reports whether a sender may name a process that is none of the service's:
// root may, where access is any. On a node nobody may: the others there are strangers.
func (s *Service) outside(uid uint32) bool {
	return s.access == AccessAny && uid == 0 && !s.tenant()
}

// tenant reports whether the service is one of a node's, among strangers.
func (s *Service) tenant() bool {
	_, ok := s.dep.Scope.(*Tenant)
	return ok
}

// named1 opens the process that a sender calls n, in the PID namespace where the
// sender lives. It must live and be one of the service's; only root may name
// another, and only where access is any.
func (s *Service) named1(n int, who person, uid uint32) (*person, error) {
	outside := s.outside(uid)
	if who.h != nil && n == who.home.Inner() { // itself, whoever has its number by now
		p := s.find(who.id)
		switch {
		case p == nil || p.h.Ended():
			return nil, proc.ErrGone
		case !outside && !s.isMember(p):
			return nil, errNotMember
		}
		return s.touch(p), nil
	}
	h, err := s.called(n, who, outside)
	if err != nil {
		return nil, err
	}
	pid := h.ID().PID
	if pid == 1 || pid == unix.Getpid() {
		h.Close()
		return nil, errNotMember
	}
	p := s.meet(pid, h)
	if !s.recognised(p) && !outside {
		return nil, errNotMember
	}
	return p, nil
}

// A process that was just started may be named before it can be recognised: its
// parent is told of exec when the kernel closes the descriptors (close-on-exec),
// and only a moment later the kernel has the new command line. So much is waited
// for it, in all.
const (
	execLooks = 20
	execWait  = 100 * time.Microsecond
)

// recognised is isMember for a process that may be in exec.
func (s *Service) recognised(p *person) bool {
	member := s.isMember(p)
	for range execLooks {
		if member || !s.inExec(p) {
			break
		}
		time.Sleep(execWait)
		p.generation = 0
		member = s.isMember(p)
	}
	return member
}

// inExec reports whether select.process cannot tell yet what p is.
func (s *Service) inExec(p *person) bool {
	if s.cfg.Process == nil || s.tenant() || p.h.Ended() { // a node knows its processes without
		return false
	}
	cmd, ok := s.inside.cmdline(s.dep.FS, p.id.PID, insideLong)
	return ok && cmd == ""
}

// called opens whom a sender calls n. Of a sender that was gone before anybody knew
// where it lived only that is believed which can mean nobody else.
func (s *Service) called(n int, who person, outside bool) (*proc.Handle, error) {
	may := func(pid int) bool { return outside || s.dep.Scope == nil || s.dep.Scope.Member(pid) }
	switch {
	case len(who.home.Names) > 1:
		h, err := s.dep.FS.Called(who.home, who.h, n, may, s.dep.Among)
		if errors.Is(err, proc.ErrGone) {
			err = fmt.Errorf("no process of this service is called %d where process %d lives", n, who.id.PID)
		}
		return h, err
	case len(who.home.Names) == 0 && who.id.PID != 0:
		if n == who.id.PID {
			return nil, proc.ErrGone
		}
		h, err := s.dep.FS.Anywhere(n, may, s.dep.Among)
		if err == nil && h.ID().PID != n {
			h.Close()
			err = errors.New("its sender has ended, and with it what it called a process")
		}
		return h, err
	}
	return s.dep.FS.Open(n)
}
