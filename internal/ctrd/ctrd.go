// Package ctrd tells what containers there are on this host, by containerd's metadata
// and events, and starts a task again where nobody else does. It is the only part of
// podnotify that knows of containerd, and it belongs to podnotify-node. It signals
// nothing but what it replaces, and never touches a container that CRI made.
package ctrd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/api/events"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	bus "github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
)

// Prefix begins the labels and annotations that are for podnotify.
const Prefix = "podnotify.io/"

// What containerd's CRI plugin and kubelet write.
const (
	labelKind         = "io.cri-containerd.kind" // container or sandbox
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodName      = "io.kubernetes.pod.name"
	labelContainer    = "io.kubernetes.container.name"
	noteSandbox       = "io.kubernetes.cri.sandbox-id" // in the OCI specification
	extensionSandbox  = "io.cri-containerd.sandbox.metadata"

	labelRestart = "containerd.io/restart.status" // of the restart plugin
	labelLog     = "containerd.io/restart.loguri"
)

// Key names a container.
type Key struct {
	Namespace string // containerd's own, "k8s.io" for pods
	ID        string
}

func (k Key) String() string { return k.Namespace + "/" + k.ID }

// Pod names a container in Kubernetes.
type Pod struct{ Namespace, Name, Container string }

// Container is a container that asks to be served.
type Container struct {
	Key
	Pod     Pod  // zero: it belongs to no pod
	Owned   bool // kubelet, or containerd's restart plugin, starts it again
	Options map[string]string
	Mounts  []string // directories and files of the host in it
}

// Origin says where an option was written.
func (c *Container) Origin(key string) string {
	if c.Pod != (Pod{}) {
		return "annotation " + Prefix + c.Pod.Container + "." + key
	}
	return "label " + Prefix + key
}

// Handler is told of containers that ask to be served, one thing at a time. Everything
// may be told more than once: after containerd was away it begins anew.
type Handler interface {
	Container(c Container)  // exists, or has changed
	Created(k Key, pid int) // its first process waits to become the daemon
	Started(k Key, pid int) // and has
	// Exited tells how its first process ended: 128+n by signal n. With now it has just
	// happened.
	Exited(k Key, pid int, status uint32, now bool)
	OutOfMemory(k Key)
	Stopped(k Key) // has no task
	Removed(k Key)
	// Connected is told true when everything that there is has been told, and false when
	// containerd does not answer.
	Connected(yes bool, reason error)
}

// Client talks to one containerd.
type Client struct {
	Address    string   // of its socket
	Namespaces []string // of containerd; empty: all
	Log        *slog.Logger

	asked map[Key]bool
}

// Watch tells the handler what there is and what happens until ctx is done. A
// containerd that goes away is waited for.
func (c *Client) Watch(ctx context.Context, h Handler) {
	c.asked = map[Key]bool{}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		began := time.Now()
		err := c.watch(ctx, h)
		if ctx.Err() != nil {
			return
		}
		h.Connected(false, fmt.Errorf("cannot watch containerd at %s: %w", c.Address, err))
		if time.Since(began) > time.Minute {
			wait = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// watch is Watch until containerd goes away.
func (c *Client) watch(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The client waits for a socket that is not there, and does not say why.
	s, err := net.Dial("unix", c.Address)
	if err != nil {
		return err
	}
	_ = s.Close() // nothing was said
	d, err := client.New(c.Address, client.WithTimeout(10*time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing hangs on it
	if err := answers(ctx, d); err != nil {
		return err
	}
	var filters []string
	for _, topic := range []string{"/containers/", "/tasks/"} {
		filters = append(filters, `topic~="^`+topic+`"`)
	}
	news, broken := d.EventService().Subscribe(ctx, filters...)
	// What happens from here on is heard, if it happens again what is listed.
	if err := c.list(ctx, d, h); err != nil {
		return err
	}
	h.Connected(true, nil)
	for {
		select {
		case e := <-news:
			if e != nil && c.concerns(e.Namespace) {
				if err := c.event(ctx, d, h, e); err != nil {
					return err
				}
			}
		case err := <-broken:
			if err == nil {
				err = errors.New("it hung up")
			}
			return err
		}
	}
}

// answers asks for anything, not for long: the stream of events would wait for ever.
func answers(ctx context.Context, d *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := d.Version(ctx)
	return err
}

func (c *Client) concerns(namespace string) bool {
	return len(c.Namespaces) == 0 || slices.Contains(c.Namespaces, namespace)
}

// list tells everything that there is.
func (c *Client) list(ctx context.Context, d *client.Client, h Handler) error {
	spaces, err := d.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	found := map[Key]bool{}
	for _, space := range spaces {
		if !c.concerns(space) {
			continue
		}
		in := namespaces.WithNamespace(ctx, space)
		all, err := d.ContainerService().List(in)
		if err != nil {
			return err
		}
		for i := range all {
			if k := (Key{space, all[i].ID}); c.container(in, d, h, k, &all[i]) {
				found[k] = true
			}
		}
		running, err := d.TaskService().List(in, &tasks.ListTasksRequest{})
		if err != nil {
			return err
		}
		tasked := map[Key]bool{}
		for _, t := range running.Tasks {
			k := Key{space, t.ID}
			if !c.asked[k] {
				continue
			}
			tasked[k] = true
			switch t.Status {
			case task.Status_CREATED:
				h.Created(k, int(t.Pid))
			case task.Status_STOPPED:
				h.Exited(k, int(t.Pid), t.ExitStatus, false)
				h.Stopped(k)
			default:
				h.Started(k, int(t.Pid))
			}
		}
		for k := range found {
			if k.Namespace == space && !tasked[k] {
				h.Stopped(k)
			}
		}
	}
	for k := range c.asked {
		if !found[k] {
			c.removed(h, k)
		}
	}
	return nil
}

// event tells one thing that has happened.
func (c *Client) event(ctx context.Context, d *client.Client, h Handler, e *bus.Envelope) error {
	if e.Event == nil {
		return nil
	}
	v, err := typeurl.UnmarshalAny(e.Event)
	if err != nil {
		c.Log.Debug("an event of containerd cannot be read", "topic", e.Topic, "error", err) // of a version to come
		v = nil
	}
	key := func(id string) Key { return Key{e.Namespace, id} }
	ctx = namespaces.WithNamespace(ctx, e.Namespace)
	switch v := v.(type) {
	case *events.ContainerCreate:
		return c.load(ctx, d, h, key(v.ID))
	case *events.ContainerUpdate:
		return c.load(ctx, d, h, key(v.ID))
	case *events.ContainerDelete:
		if k := key(v.ID); c.asked[k] {
			c.removed(h, k)
		}
	case *events.TaskCreate:
		if k := key(v.ContainerID); c.asked[k] {
			h.Created(k, int(v.Pid))
		}
	case *events.TaskStart:
		if k := key(v.ContainerID); c.asked[k] {
			h.Started(k, int(v.Pid))
		}
	case *events.TaskOOM:
		if k := key(v.ContainerID); c.asked[k] {
			h.OutOfMemory(k)
		}
	case *events.TaskExit:
		if k := key(v.ContainerID); c.asked[k] && v.ID == v.ContainerID { // else it ends what exec began
			h.Exited(k, int(v.Pid), v.ExitStatus, true)
		}
	}
	return nil
}

func (c *Client) removed(h Handler, k Key) {
	delete(c.asked, k)
	h.Removed(k)
}

// load reads a container that was made or changed.
func (c *Client) load(ctx context.Context, d *client.Client, h Handler, k Key) error {
	r, err := d.ContainerService().Get(ctx, k.ID)
	switch {
	case errdefs.IsNotFound(err): // again; that is told next
		return nil
	case err != nil:
		return err
	}
	c.container(ctx, d, h, k, &r)
	return nil
}

// container tells of a container if it asks to be served.
func (c *Client) container(ctx context.Context, d *client.Client, h Handler, k Key, r *containers.Container) bool {
	out := Container{Key: k, Options: map[string]string{}}
	kind := r.Labels[labelKind]
	if kind == "sandbox" {
		return false
	}
	spec := specOf(r)
	if kind != "" {
		out.Owned = true
		out.Pod = Pod{r.Labels[labelPodNamespace], r.Labels[labelPodName], r.Labels[labelContainer]}
		c.annotations(ctx, d, spec.Annotations[noteSandbox], &out)
	}
	for label, value := range r.Labels {
		if key, ok := strings.CutPrefix(label, Prefix); ok {
			if _, told := out.Options[key]; !told {
				out.Options[key] = value
			}
		}
	}
	if _, yes := r.Labels[labelRestart]; yes {
		out.Owned = true
	}
	if len(out.Options) == 0 {
		if c.asked[k] {
			c.removed(h, k)
		}
		return false
	}
	for _, m := range spec.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			out.Mounts = append(out.Mounts, m.Source)
		}
	}
	c.asked[k] = true
	h.Container(out)
	return true
}

// spec is as much of an OCI specification as is of interest.
type spec struct {
	Annotations map[string]string
	Mounts      []struct {
		Type, Source string
		Options      []string
	}
}

func specOf(r *containers.Container) (s spec) {
	if r.Spec != nil {
		_ = json.Unmarshal(r.Spec.GetValue(), &s) // what cannot be read is not there
	}
	return s
}

// annotations reads the options of a pod's container, which are where CRI keeps what
// kubelet asked for: with the pod's sandbox.
func (c *Client) annotations(ctx context.Context, d *client.Client, sandbox string, into *Container) {
	if sandbox == "" {
		return
	}
	r, err := d.ContainerService().Get(ctx, sandbox)
	if err != nil {
		if !errdefs.IsNotFound(err) {
			c.Log.Warn("cannot read a pod's annotations", "container", into.Key.String(), "error", err)
		}
		return
	}
	x := r.Extensions[extensionSandbox]
	if x == nil {
		return
	}
	var meta struct {
		Metadata struct {
			Config struct {
				Annotations map[string]string `json:"annotations"`
			}
		}
	}
	if err := json.Unmarshal(x.GetValue(), &meta); err != nil {
		c.Log.Warn("cannot read a pod's annotations", "container", into.Key.String(), "error", err)
		return
	}
	for name, value := range meta.Metadata.Config.Annotations {
		if key, ok := strings.CutPrefix(name, Prefix+into.Pod.Container+"."); ok {
			into.Options[key] = value
		}
	}
}

// respawnTime bounds how long a task may take to be replaced.
const respawnTime = time.Minute

// Respawn replaces a container's task: what is left of the last one is killed and
// deleted, and a new one is made and started. The output goes where the label
// containerd.io/restart.loguri says, else nowhere: who had it is gone. The error is
// [ErrGone] if the container is no more.
func (c *Client) Respawn(ctx context.Context, k Key) error {
	if err := c.respawn(ctx, k); err != nil {
		if errdefs.IsNotFound(err) {
			err = ErrGone
		}
		return fmt.Errorf("cannot start a new task of container %v: %w", k, err)
	}
	return nil
}

var (
	// ErrGone says that there is no such container any more.
	ErrGone = errors.New("it was removed")
	// ErrOwned says that somebody else starts the container again.
	ErrOwned = errors.New("it is not ours to start")
)

func (c *Client) respawn(ctx context.Context, k Key) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, k.Namespace), respawnTime)
	defer cancel()
	// The client waits for a socket that is not there, and does not say why.
	s, err := net.Dial("unix", c.Address)
	if err != nil {
		return err
	}
	_ = s.Close() // nothing was said
	d, err := client.New(c.Address, client.WithTimeout(10*time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing hangs on it
	ctr, err := d.LoadContainer(ctx, k.ID)
	if err != nil {
		return err
	}
	labels, err := ctr.Labels(ctx)
	if err != nil {
		return err
	}
	if labels[labelKind] != "" || labels[labelRestart] != "" { // whatever we were told before
		return ErrOwned
	}
	if err := sweep(ctx, ctr); err != nil {
		return err
	}
	out := cio.Creator(cio.NullIO)
	if text := labels[labelLog]; text != "" {
		u, err := url.Parse(text)
		if err != nil {
			return fmt.Errorf("label %s: %w", labelLog, err)
		}
		out = cio.LogURI(u)
	}
	t, err := ctr.NewTask(ctx, out)
	if err != nil {
		return err
	}
	if err := t.Start(ctx); err != nil {
		_, e := t.Delete(ctx, client.WithProcessKill)
		return errors.Join(err, e)
	}
	return nil
}

// sweep ends and deletes what is left of a container's task.
func sweep(ctx context.Context, ctr client.Container) error {
	t, err := ctr.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ended, err := t.Wait(ctx)
	if err == nil {
		if err := t.Kill(ctx, unix.SIGKILL, client.WithKillAll); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	} else if !errdefs.IsNotFound(err) {
		return err
	}
	if _, err := t.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
