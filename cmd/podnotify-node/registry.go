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
	client *ctrd.Client
	log    *slog.Logger
	ctx    context.Context // ends with the program

	away  atomic.Pointer[string] // why containerd does not answer; nil: it does
	swept bool                   // state files of containers that are no more are removed

	mu    sync.RWMutex // leaf
	keys  map[ctrd.Key]*container
	names map[string]*container
	all   []*container // in the order of their names
}

// container is one that is served. That of a pod stays the same service when kubelet
// replaces it by another of the same name.
type container struct {
	*sidecar.Tenant
	what   ctrd.Container // of registry.mu, as are names
	names  []string
	labels []string
	file   *journal.File
	node   *registry
}

// Look adds what is wrong with the node to what is known of the container.
func (c *container) Look() *lifecycle.Snapshot {
	look := c.Tenant.Look()
	why := c.node.away.Load()
	if why == nil {
		return look
	}
	with := *look
	with.Facts.Warnings = append(slices.Clone(with.Facts.Warnings), *why)
	return &with
}

// Labels implements metrics.Labelled.
func (c *container) Labels() []string { return c.labels }

var labelNames = []string{"namespace", "pod", "container"}

func newRegistry(ctx context.Context, node *sidecar.Node, dir *rundir.Dir, state *journal.Dir, client *ctrd.Client, log *slog.Logger) *registry {
	r := &registry{
		node: node, dir: dir, state: state, client: client, log: log, ctx: ctx,
		keys: map[ctrd.Key]*container{}, names: map[string]*container{},
	}
	r.away.Store(new("containerd was not asked yet"))
	return r
}

// nameOf is what a container is called first: NAMESPACE/POD/CONTAINER, or its id.
func nameOf(c ctrd.Container) string {
	if p := c.Pod; p != (ctrd.Pod{}) {
		return p.Namespace + "/" + p.Name + "/" + p.Container
	}
	return c.ID
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
	name := nameOf(c)
	r.mu.RLock()
	known, called := r.keys[c.Key], r.names[name]
	r.mu.RUnlock()
	switch {
	case known != nil && same(known.what, c):
		return
	case known != nil: // its labels have changed
		r.remove(known, true)
	case called != nil && called.what.Pod != (ctrd.Pod{}) && same(called.what, c): // kubelet started it again
		r.rename(called, c)
		return
	case called != nil && called.what.Pod != (ctrd.Pod{}):
		r.remove(called, true)
	case called != nil:
		r.log.Warn("two containers have one id; the second one is served by its namespace, too, only", "container", c.Key.String())
		name = c.Key.String()
	}
	if err := r.add(name, c); err != nil {
		r.log.Error("container is not served", "service", name, "container", c.Key.String(), "error", err)
	}
}

func same(a, b ctrd.Container) bool {
	return a.Pod == b.Pod && a.Owned == b.Owned && maps.Equal(a.Options, b.Options)
}

// add makes a container's service.
func (r *registry) add(name string, c ctrd.Container) error {
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
	n := &container{node: r, what: c, names: []string{name}, labels: []string{c.Pod.Namespace, c.Pod.Name, c.Pod.Container}}
	if name != c.ID {
		n.names = append(n.names, c.ID)
	}
	if wrong == nil {
		n.file = r.state.File(stateName(c))
	}
	t, err := r.node.Add(cfg, sidecar.Deps{Log: r.log, Journal: n.file, Start: func() { r.respawn(n) }})
	if err != nil {
		return err
	}
	n.Tenant = t
	if wrong != nil {
		t.Refuse(strings.ReplaceAll(wrong.Error(), "\n", "; "))
	}
	r.mu.Lock()
	r.keys[c.Key] = n
	for _, name := range n.names {
		r.names[name] = n
	}
	i, _ := slices.BinarySearchFunc(r.all, name, func(c *container, name string) int { return cmp.Compare(c.names[0], name) })
	r.all = slices.Insert(r.all, i, n)
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

// rename gives a service another container of the same name.
func (r *registry) rename(n *container, c ctrd.Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, n.what.Key)
	delete(r.names, n.what.ID)
	// Others may be reading what it was.
	n.what, n.names = c, []string{n.names[0], c.ID}
	r.keys[c.Key], r.names[c.ID] = n, n
}

// remove ends a service.
func (r *registry) remove(n *container, changed bool) {
	r.mu.Lock()
	delete(r.keys, n.what.Key)
	for _, name := range n.names {
		delete(r.names, name)
	}
	r.all = slices.DeleteFunc(slices.Clone(r.all), func(c *container) bool { return c == n })
	r.mu.Unlock()
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
func (r *registry) Created(k ctrd.Key, pid int) { r.told(k, pid, (*sidecar.Tenant).Created) }

// Started implements ctrd.Handler.
func (r *registry) Started(k ctrd.Key, pid int) { r.told(k, pid, (*sidecar.Tenant).Started) }

func (r *registry) told(k ctrd.Key, pid int, tell func(*sidecar.Tenant, int) error) {
	n := r.of(k)
	if n == nil {
		return
	}
	if err := tell(n.Tenant, pid); err != nil {
		r.log.Warn("the first process of a container cannot be held", "service", n.Name(), "pid", pid, "error", err)
	}
}

// Exited implements ctrd.Handler.
func (r *registry) Exited(k ctrd.Key, pid int, status uint32, now bool) {
	if n := r.of(k); n != nil {
		exit := lifecycle.Exit{Known: true, Code: int(status)}
		if status > 128 && status < 128+65 {
			exit = lifecycle.Exit{Known: true, Signal: int(status) - 128}
		}
		n.Exited(pid, exit, now)
	}
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
	c := n.what
	r.mu.RUnlock()
	if c.Owned {
		return // refused when it was added
	}
	r.log.Info("starting a new task", "service", n.Name())
	switch err := r.client.Respawn(r.ctx, c.Key); {
	case err == nil, errors.Is(err, ctrd.ErrGone), r.ctx.Err() != nil:
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

func (r *registry) named(name string) *container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names[name]
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
	return map[string]bool{"state": r.state.Trouble() != nil, "containerd": r.away.Load() != nil}
}

// healthy reports why we cannot hear. That containerd does not answer is no reason:
// nothing that restarted us would help.
func (r *registry) healthy() error {
	if err := r.node.Healthy(); err != nil {
		return fmt.Errorf("the socket of this node: %w", err)
	}
	return nil
}
