package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/ctrd"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/metrics"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// registry is the containers that are served, by all their names. containerd's news
// comes in from one goroutine; everybody may look.
type registry struct {
	node   *sidecar.Node
	dir    *rundir.Dir
	state  *journal.Dir
	scarce *proc.Descriptors
	client *ctrd.Client
	log    *slog.Logger
	ctx    context.Context // ends with the program

	away  atomic.Pointer[string] // why containerd does not answer; nil: it does
	swept bool                   // state files of containers that are no more are removed

	mu   sync.RWMutex // leaf
	keys map[ctrd.Key]*container
	pods map[string]*container   // by NAMESPACE/POD/CONTAINER
	ids  map[string][]*container // ids are unique in a namespace of containerd only
	all  []*container            // in the order of their names
}

// container is one that is served. That of a pod stays the same service when kubelet
// replaces it by another of the same name.
type container struct {
	*sidecar.Tenant
	name    atomic.Pointer[string]
	trouble atomic.Pointer[string] // why its task is not heard; nil: it is
	labels  []string
	file    *journal.File
	node    *registry
	ctx     context.Context // ends with the service
	end     context.CancelFunc

	// of registry.mu:
	what   ctrd.Container
	pid    int     // the first process of the last task, 0 if none was seen
	entry  proc.ID // the same, as it was bound
	cgroup string  // and where
}

// Name is what the container is called now: see [registry.call].
func (c *container) Name() string { return *c.name.Load() }

// Look adds what is wrong with the node to what is known of the container.
func (c *container) Look() *lifecycle.Snapshot {
	look := c.Tenant.Look()
	var more []string
	for _, why := range []*string{c.node.away.Load(), c.trouble.Load()} {
		if why != nil {
			more = append(more, *why)
		}
	}
	if more == nil {
		return look
	}
	with := *look
	with.Facts.Warnings = append(slices.Clone(with.Facts.Warnings), more...)
	return &with
}

// Labels implements metrics.Labelled.
func (c *container) Labels() []string { return c.labels }

var labelNames = []string{"namespace", "pod", "container"}

func newRegistry(ctx context.Context, node *sidecar.Node, dir *rundir.Dir, state *journal.Dir, client *ctrd.Client, log *slog.Logger) *registry {
	r := &registry{
		node: node, dir: dir, state: state, scarce: proc.NewDescriptors(log), client: client, log: log, ctx: ctx,
		keys: map[ctrd.Key]*container{}, pods: map[string]*container{}, ids: map[string][]*container{},
	}
	r.away.Store(new("containerd was not asked yet"))
	return r
}

// podName is NAMESPACE/POD/CONTAINER, "" for a plain container.
func podName(c ctrd.Container) string {
	if p := c.Pod; p != (ctrd.Pod{}) {
		return p.Namespace + "/" + p.Name + "/" + p.Container
	}
	return ""
}

// stateName is the name of a container's state file. No part of it has a plus.
func stateName(c ctrd.Container) string {
	name := c.Namespace + "+" + c.ID
	if p := c.Pod; p != (ctrd.Pod{}) {
		name = p.Namespace + "+" + p.Name + "+" + p.Container
	}
	if len(name) > 200 {
		sum := sha256.Sum256([]byte(name))
		name = hex.EncodeToString(sum[:])
	}
	return name
}

// Container implements ctrd.Handler.
func (r *registry) Container(c ctrd.Container) {
	r.mu.RLock()
	known, called := r.keys[c.Key], r.pods[podName(c)]
	r.mu.RUnlock()
	switch {
	case known != nil && same(known.what, c):
		return
	case known != nil: // its labels have changed
		r.remove(known, true)
	case called == nil:
	case c.Made.Before(called.what.Made): // what kubelet has replaced lies about until it is collected
		r.log.Debug("a container that was replaced by another of the same name is passed over", "service", called.Name(), "container", c.Key.String())
		return
	case same(called.what, c): // kubelet started it again
		r.replace(called, c)
		return
	default:
		r.remove(called, true)
	}
	if err := r.add(c); err != nil {
		r.log.Error("container is not served", "service", cmp.Or(podName(c), c.ID), "container", c.Key.String(), "error", err)
	}
}

func same(a, b ctrd.Container) bool {
	return a.Pod == b.Pod && a.Owned == b.Owned && maps.Equal(a.Options, b.Options)
}

// add makes a container's service.
func (r *registry) add(c ctrd.Container) error {
	name := podName(c)
	if name == "" {
		r.mu.RLock()
		name = plainName(c.Key, len(r.ids[c.ID])+1)
		r.mu.RUnlock()
	}
	cfg, warnings, wrong := config.Container(name, c.Options, c.Origin, c.Owned)
	if wrong != nil {
		cfg = sidecar.Config{Name: name, Policy: lifecycle.DefaultPolicy(), Access: sidecar.AccessNone, KillSignal: unix.SIGTERM}
	}
	for _, w := range warnings {
		r.log.Warn(w, "service", name)
	}
	if address := r.ownSocket(c); address != "" && wrong == nil {
		closed, err := r.dir.ServiceDir(address)
		if err != nil {
			return err
		}
		rundir.WarnClosed(r.log, name, closed)
		cfg.Address = address
	}
	n := &container{node: r, what: c, labels: []string{c.Pod.Namespace, c.Pod.Name, c.Pod.Container}}
	n.ctx, n.end = context.WithCancel(r.ctx)
	n.name.Store(&name)
	if wrong == nil {
		n.file = r.state.File(stateName(c))
	}
	t, err := r.node.Add(cfg, sidecar.Deps{Log: r.log, Journal: n.file, Descriptors: r.scarce, Start: func() { r.respawn(n) }})
	if err != nil {
		n.end()
		return err
	}
	n.Tenant = t
	if wrong != nil {
		t.Refuse(strings.ReplaceAll(wrong.Error(), "\n", "; "))
	}
	r.mu.Lock()
	r.keys[c.Key] = n
	if p := podName(c); p != "" {
		r.pods[p] = n
	}
	r.ids[c.ID] = append(r.ids[c.ID], n)
	r.all = append(slices.Clone(r.all), n)
	r.call(c.ID)
	r.mu.Unlock()
	r.log.Info("serving a container", "service", name, "container", c.Key.String(), "expect", cfg.Policy.Expect.String())
	return nil
}

// ownSocket is the address of a plain container's own socket, if its directory is
// mounted into it: RUN-DIR/ID. "" if it is not.
func (r *registry) ownSocket(c ctrd.Container) string {
	switch c.ID {
	case "node", "state", "control", "lock":
		return ""
	}
	dir := filepath.Join(r.dir.Path, c.ID)
	if c.Pod != (ctrd.Pod{}) || filepath.Dir(dir) != r.dir.Path {
		return ""
	}
	for _, m := range c.Mounts {
		if filepath.Clean(m) == dir {
			return filepath.Join(dir, "notify")
		}
	}
	return ""
}

// plainName is what one of so many containers with its id is called.
func plainName(k ctrd.Key, count int) string {
	if count == 1 {
		return k.ID
	}
	return k.String()
}

// call names the containers with an id: by it while only one has it, else by containerd's
// namespace, too, so that nobody is given the answer of another. A container of a pod
// keeps the pod's name. r.mu is held.
func (r *registry) call(id string) {
	all := r.ids[id]
	for _, n := range all {
		if name := plainName(n.what.Key, len(all)); n.what.Pod == (ctrd.Pod{}) && name != n.Name() {
			r.log.Warn("the names of containers with one id in several namespaces of containerd have changed", "service", n.Name(), "now", name)
			n.name.Store(&name)
		}
	}
	slices.SortFunc(r.all, func(a, b *container) int { return cmp.Compare(a.Name(), b.Name()) })
}

// drop takes a container's keys from it. r.mu is held.
func (r *registry) drop(n *container) {
	id := n.what.ID
	delete(r.keys, n.what.Key)
	r.ids[id] = slices.DeleteFunc(slices.Clone(r.ids[id]), func(c *container) bool { return c == n })
	if len(r.ids[id]) == 0 {
		delete(r.ids, id)
	}
	r.call(id)
}

// replace gives a service another container of the same name.
func (r *registry) replace(n *container, c ctrd.Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(n)
	n.what = c
	r.keys[c.Key] = n
	r.ids[c.ID] = append(r.ids[c.ID], n)
	r.call(c.ID)
}

// remove ends a service.
func (r *registry) remove(n *container, changed bool) {
	r.mu.Lock()
	r.all = slices.DeleteFunc(slices.Clone(r.all), func(c *container) bool { return c == n })
	if p := podName(n.what); p != "" {
		delete(r.pods, p)
	}
	r.drop(n)
	r.mu.Unlock()
	n.end() // calls off a respawn, which Remove would wait for
	n.Remove()
	if n.file != nil && !changed {
		n.file.Remove()
	}
}

func (r *registry) of(k ctrd.Key) *container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[k]
}

// Created implements ctrd.Handler.
func (r *registry) Created(k ctrd.Key, id proc.ID) error {
	_, err := r.told(k, id, (*sidecar.Tenant).Created)
	return err
}

// Started implements ctrd.Handler.
func (r *registry) Started(k ctrd.Key, id proc.ID) error {
	n, err := r.told(k, id, (*sidecar.Tenant).Started)
	if n != nil {
		r.mu.Lock()
		n.pid = id.PID // from here on a task that is to be replaced is this one
		r.mu.Unlock()
	}
	return err
}

// told returns the container if it is heard now. The error is that there are no
// descriptors, which may pass; others stay and are said.
func (r *registry) told(k ctrd.Key, id proc.ID, tell func(*sidecar.Tenant, proc.ID) error) (*container, error) {
	n := r.of(k)
	if n == nil {
		return nil, nil
	}
	err := r.bind(n, id)
	if err == nil {
		err = tell(n.Tenant, id)
	}
	if err == nil {
		n.trouble.Store(nil)
		return n, nil
	}
	if r.scarce.Exhausted(err) {
		return nil, fmt.Errorf("cannot hold the first process of container %s: %w", n.Name(), err)
	}
	r.log.Warn("the first process of a container cannot be held", "service", n.Name(), "pid", id.PID, "error", err)
	if !errors.Is(err, proc.ErrGone) && !errors.Is(err, proc.ErrReused) {
		n.trouble.Store(new(fmt.Sprintf("its first process, %d, cannot be held: %v", id.PID, err)))
	}
	return nil, nil
}

// bind notes where a container's first process lives. A cgroup in which another container
// lives is refused: nothing would tell their words apart.
func (r *registry) bind(n *container, id proc.ID) error {
	at, err := proc.Proc.Cgroup(id.PID)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.all {
		if other == n || other.cgroup != at.Cgroup {
			continue
		}
		if first, err := proc.Proc.Stat(other.entry.PID); err == nil && first.ID() == other.entry && !first.State.Dead() {
			return fmt.Errorf("container %s lives in the same cgroup; give each a cgroup of its own", other.Name())
		}
	}
	n.entry, n.cgroup = id, at.Cgroup
	return nil
}

// Exited implements ctrd.Handler.
func (r *registry) Exited(k ctrd.Key, pid int, status uint32, now bool) {
	n := r.of(k)
	if n == nil || n.Outlived(pid) {
		return
	}
	r.mu.Lock()
	n.pid = pid
	r.mu.Unlock()
	exit := lifecycle.Exit{Known: true, Code: int(status)}
	if status > 128 && status < 128+65 {
		exit = lifecycle.Exit{Known: true, Signal: int(status) - 128}
	}
	n.Exited(pid, exit, now)
}

// OutOfMemory implements ctrd.Handler.
func (r *registry) OutOfMemory(k ctrd.Key) {
	if n := r.of(k); n != nil {
		n.OutOfMemory()
	}
}

// Stopped implements ctrd.Handler.
func (r *registry) Stopped(k ctrd.Key) {
	if n := r.of(k); n != nil {
		n.Ended()
	}
}

// Removed implements ctrd.Handler.
func (r *registry) Removed(k ctrd.Key) {
	if n := r.of(k); n != nil {
		r.log.Info("container was removed", "service", n.Name(), "container", k.String())
		r.remove(n, false)
	}
}

// Connected implements ctrd.Handler.
func (r *registry) Connected(yes bool, reason error) {
	r.node.Connected(yes)
	if !yes {
		why := reason.Error()
		if was := r.away.Swap(&why); was == nil || *was != why {
			r.log.Warn("containerd does not answer; daemons that are known are heard all the same, new containers are not served", "error", reason)
		}
		return
	}
	if r.away.Swap(nil) != nil {
		r.log.Info("watching containerd", "address", r.client.Address)
	}
	if !r.swept {
		r.swept = true
		r.sweep()
	}
}

// sweep removes the state files of containers that were removed while nobody watched.
func (r *registry) sweep() {
	keep := map[string]bool{}
	r.mu.RLock()
	for _, n := range r.all {
		keep[stateName(n.what)+".json"] = true
	}
	r.mu.RUnlock()
	files, _ := os.ReadDir(r.dir.State())
	for _, f := range files {
		if name := f.Name(); strings.HasSuffix(name, ".json") && !keep[name] {
			_ = os.Remove(filepath.Join(r.dir.State(), name))
		}
	}
}

// respawn starts a container's task again. The limits are the service's.
func (r *registry) respawn(n *container) {
	r.mu.RLock()
	c, pid := n.what, n.pid
	r.mu.RUnlock()
	if c.Owned || n.Tenant.Look().Main != (lifecycle.ProcID{}) {
		return // refused when it was added; or somebody was faster
	}
	r.log.Info("starting a new task", "service", n.Name())
	switch err := r.client.Respawn(n.ctx, c.Key, pid); {
	case err == nil, errors.Is(err, ctrd.ErrGone), n.ctx.Err() != nil:
	default:
		r.log.Error("no new task", "service", n.Name(), "error", err)
		n.NotStarted()
	}
}

// Services implements probes.Directory.
func (r *registry) Services() []probes.Source { return list[probes.Source](r) }

// Service implements probes.Directory.
func (r *registry) Service(name string) probes.Source {
	if n := r.named(name); n != nil {
		return n
	}
	return nil
}

// named is the container that is called so: by the pod's name, by NAMESPACE/ID with
// containerd's namespace, or by an id that no other has.
func (r *registry) named(name string) *container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.pods[name]; n != nil {
		return n
	}
	if all := r.ids[name]; len(all) == 1 {
		return all[0]
	}
	if space, id, ok := strings.Cut(name, "/"); ok {
		return r.keys[ctrd.Key{Namespace: space, ID: id}]
	}
	return nil
}

// list is all containers as what somebody wants them for.
func list[T any](r *registry) []T {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]T, len(r.all))
	for i, n := range r.all {
		out[i] = any(n).(T)
	}
	return out
}

// actor is whom verbs act on.
func (r *registry) actor() control.Actor {
	return control.Actor{
		All: func() []control.Service { return list[control.Service](r) },
		Named: func(name string) control.Service {
			if n := r.named(name); n != nil {
				return n
			}
			return nil
		},
		Signal: config.Signal,
	}
}

func (r *registry) measured() []metrics.Source { return list[metrics.Source](r) }

// degraded names our own troubles, which fail no probe.
func (r *registry) degraded() map[string]bool {
	return map[string]bool{"state": r.state.Trouble() != nil, "descriptors": r.scarce.Trouble() != nil, "containerd": r.away.Load() != nil}
}

// healthy reports why we cannot hear. That containerd does not answer is no reason:
// nothing that restarted us would help.
func (r *registry) healthy() error {
	if err := r.node.Healthy(); err != nil {
		return fmt.Errorf("the socket of this node: %w", err)
	}
	return nil
}
