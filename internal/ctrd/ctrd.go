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
	"path"
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
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/podnotify/podnotify/internal/proc"
)

// Prefix begins the labels and annotations that are for podnotify.
const Prefix = "podnotify.io/"

// labelInject is of pods that have a sidecar injected, which takes the same annotations.
const labelInject = Prefix + "inject"

// What containerd's CRI plugin and kubelet write.
const (
	spaceCRI          = "k8s.io"                 // the only namespace that the plugin knows
	labelKind         = "io.cri-containerd.kind" // container or sandbox
	labelPodNamespace = "io.kubernetes.pod.namespace"
	labelPodName      = "io.kubernetes.pod.name"
	labelContainer    = "io.kubernetes.container.name"
	noteSandbox       = "io.kubernetes.cri.sandbox-id" // in the OCI specification
	extensionSandbox  = "io.cri-containerd.sandbox.metadata"
	extensionRequest  = "io.cri-containerd.container.metadata"

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
	Pod     Pod       // zero: it belongs to no pod
	Owned   bool      // kubelet, or containerd's restart plugin, starts it again
	Made    time.Time // by containerd's clock
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
	Container(c Container) // exists, or has changed; older ones of a namespace first
	// Created and Started tell that its first process waits to become the daemon, and
	// that it has. When containerd called it so it lived. An error says that it could not
	// be taken in, and that a moment later it may be: everything is told again.
	Created(k Key, id proc.ID) error
	Started(k Key, id proc.ID) error
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

// A containerd that hangs is one that has gone away.
const (
	answerTime = 10 * time.Second // in which it answers a question
	askEvery   = 15 * time.Second // it is asked whether it is there, since news may be long in coming
)

// connect is a client of containerd, which has answered nothing yet.
func (c *Client) connect(opts ...client.Opt) (*client.Client, error) {
	// The client waits for a socket that is not there, and does not say why.
	s, err := net.Dial("unix", c.Address)
	if err != nil {
		return nil, err
	}
	_ = s.Close() // nothing was said
	return client.New(c.Address, append(opts, client.WithTimeout(answerTime))...)
}

// bounded gives every question a time to be answered in.
func bounded(ctx context.Context, method string, ask, answer any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return invoke(ctx, method, ask, answer, cc, opts...)
}

// watch is Watch until containerd goes away.
func (c *Client) watch(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d, err := c.connect(client.WithExtraDialOpts([]grpc.DialOption{grpc.WithChainUnaryInterceptor(bounded)}))
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing hangs on it
	// The stream of events would wait for ever.
	if _, err := d.Version(ctx); err != nil {
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
	alive := time.NewTicker(askEvery)
	defer alive.Stop()
	for {
		select {
		case <-alive.C:
			if _, err := d.Version(ctx); err != nil {
				return err
			}
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
		// Of a pod's containers with one name the newest is the one that counts.
		slices.SortStableFunc(all, func(a, b containers.Container) int { return a.CreatedAt.Compare(b.CreatedAt) })
		for i := range all {
			k := Key{space, all[i].ID}
			if found[k], err = c.container(in, d, h, k, &all[i]); err != nil {
				return err
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
			if err := c.task(in, d, h, k, t); err != nil {
				return err
			}
		}
		for k := range found {
			if k.Namespace == space && found[k] && !tasked[k] {
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

// task tells how a container's task is.
func (c *Client) task(ctx context.Context, d *client.Client, h Handler, k Key, t *task.Process) error {
	switch t.Status {
	case task.Status_CREATED:
		return c.begun(ctx, d, k, int(t.Pid), h.Created)
	case task.Status_STOPPED:
		h.Exited(k, int(t.Pid), t.ExitStatus, false)
		h.Stopped(k)
		return nil
	default:
		return c.begun(ctx, d, k, int(t.Pid), h.Started)
	}
}

// begun tells of a first process if it still is one: containerd's word may be old, and
// the number another's by now. While the process is held, containerd is asked again. What
// has ended is told next.
func (c *Client) begun(ctx context.Context, d *client.Client, k Key, pid int, tell func(Key, proc.ID) error) error {
	p, err := proc.Proc.Open(pid)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return err // everything is listed again, in a moment
	}
	if err != nil {
		if pid > 0 && !errors.Is(err, proc.ErrGone) {
			c.Log.Warn("the first process of a container cannot be held", "container", k.String(), "pid", pid, "error", err)
		}
		return nil
	}
	defer p.Close()
	now, err := c.taskOf(ctx, d, k)
	if now != nil && int(now.Pid) == pid && now.Status != task.Status_STOPPED && !p.Ended() {
		return tell(k, p.ID())
	}
	return err
}

// taskOf asks for a container's task. It is nil if there is none, or if what runs it does
// not tell, which is no matter of the other containers; the error is one of containerd's.
func (c *Client) taskOf(ctx context.Context, d *client.Client, k Key) (*task.Process, error) {
	t, err := d.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: k.ID})
	switch err = errgrpc.ToNative(err); {
	case err == nil:
		return t.Process, nil
	case errdefs.IsNotFound(err):
		return nil, nil
	case ctx.Err() != nil, errdefs.IsDeadlineExceeded(err):
		return nil, err
	}
	c.Log.Warn("the task of a container cannot be seen", "container", k.String(), "error", err)
	return nil, nil
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
			return c.begun(ctx, d, k, int(v.Pid), h.Created)
		}
	case *events.TaskStart:
		if k := key(v.ContainerID); c.asked[k] {
			return c.begun(ctx, d, k, int(v.Pid), h.Started)
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

// load reads a container that was made or changed, and its task: a service that begins
// anew has to be told of it.
func (c *Client) load(ctx context.Context, d *client.Client, h Handler, k Key) error {
	r, err := d.ContainerService().Get(ctx, k.ID)
	switch {
	case errdefs.IsNotFound(err): // again; that is told next
		return nil
	case err != nil:
		return err
	}
	if asks, err := c.container(ctx, d, h, k, &r); err != nil || !asks {
		return err
	}
	t, err := c.taskOf(ctx, d, k)
	if t == nil || t.Status == task.Status_STOPPED {
		return err // an end is news, and comes as such
	}
	return c.task(ctx, d, h, k, t)
}

// ofCRI reports whether CRI made a container: it keeps a record of its own with it. A label
// alone is nobody's word: ctr makes labels of a container of those of its image.
func ofCRI(k Key, labels map[string]string, records map[string]typeurl.Any) bool {
	return k.Namespace == spaceCRI && labels[labelKind] != "" && (records[extensionRequest] != nil || records[extensionSandbox] != nil)
}

// container tells of a container if it asks to be served, and reports whether it does.
// An error is one of containerd's, not of the container.
func (c *Client) container(ctx context.Context, d *client.Client, h Handler, k Key, r *containers.Container) (asks bool, err error) {
	out := Container{Key: k, Made: r.CreatedAt, Options: map[string]string{}}
	spec := specOf(r)
	switch {
	case !ofCRI(k, r.Labels, r.Extensions):
		out.option(r.Labels, Prefix)
	case r.Labels[labelKind] == "sandbox":
		return false, nil
	default:
		out.Owned = true
		out.Pod = Pod{r.Labels[labelPodNamespace], r.Labels[labelPodName], r.Labels[labelContainer]}
		// Its labels are its image's, too. Those that CRI was asked for are kept apart.
		out.option(c.config(k, r, extensionRequest).Labels, Prefix)
		sandbox, err := c.sandbox(ctx, d, k, spec.Annotations[noteSandbox])
		if err != nil {
			return false, err
		}
		asked := c.config(k, sandbox, extensionSandbox)
		out.option(asked.Annotations, Prefix+out.Pod.Container+".")
		if asked.Labels[labelInject] == "true" {
			out.Options = nil // its sidecar's: two who continue a daemon undo an operator's stop
		}
	}
	if _, yes := r.Labels[labelRestart]; yes {
		out.Owned = true
	}
	if len(out.Options) == 0 {
		if c.asked[k] {
			c.removed(h, k)
		}
		return false, nil
	}
	for _, m := range spec.Mounts {
		if m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") {
			out.Mounts = append(out.Mounts, m.Source)
		}
	}
	c.asked[k] = true
	h.Container(out)
	return true, nil
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

// option takes the options that are among labels or annotations.
func (c *Container) option(from map[string]string, prefix string) {
	for name, value := range from {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			c.Options[key] = value
		}
	}
}

// sandbox reads the sandbox of a container's pod. It is nil if there is none.
func (c *Client) sandbox(ctx context.Context, d *client.Client, k Key, id string) (*containers.Container, error) {
	if id == "" {
		return nil, nil
	}
	r, err := d.ContainerService().Get(ctx, id)
	switch {
	case errdefs.IsNotFound(err): // and so is its container, in a moment
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot read the annotations of the pod of container %v: %w", k, err)
	}
	return &r, nil
}

// config is what CRI was asked for when it made a container or sandbox.
type config struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// config reads what was asked for of r, for container k, where CRI keeps it. What cannot
// be read is not there.
func (c *Client) config(k Key, r *containers.Container, extension string) config {
	var meta struct{ Metadata struct{ Config config } }
	if r == nil || r.Extensions[extension] == nil {
		return config{}
	}
	if err := json.Unmarshal(r.Extensions[extension].GetValue(), &meta); err != nil {
		c.Log.Warn("cannot read what a container was asked to be", "container", k.String(), "extension", extension, "error", err)
	}
	return meta.Metadata.Config
}

// respawnTime bounds how long a task may take to be replaced.
const respawnTime = time.Minute

// Respawn replaces a container's task whose first process is, or was, pid: what is left of
// it is killed and deleted, and a new one is made and started. A task of another process
// stays: somebody has started it meanwhile, and that is told. The output goes to the file
// that the label containerd.io/restart.loguri names, else nowhere: who had it is gone.
// The error is [ErrGone] if the container is no more.
func (c *Client) Respawn(ctx context.Context, k Key, pid int) error {
	if err := c.respawn(ctx, k, pid); err != nil && err != errOthers {
		return fmt.Errorf("cannot start a new task of container %v: %w", k, err)
	}
	return nil
}

var (
	// ErrGone says that there is no such container any more.
	ErrGone = errors.New("it was removed")
	// ErrOwned says that somebody else starts the container again.
	ErrOwned = errors.New("it is not ours to start")

	errOthers = errors.New("somebody else has started it")
)

func (c *Client) respawn(ctx context.Context, k Key, pid int) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, k.Namespace), respawnTime)
	defer cancel()
	d, err := c.connect()
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // nothing hangs on it
	ctr, err := d.LoadContainer(ctx, k.ID)
	if errdefs.IsNotFound(err) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	labels, err := ctr.Labels(ctx)
	if err != nil {
		return err
	}
	records, err := ctr.Extensions(ctx)
	if err != nil {
		return err
	}
	if ofCRI(k, labels, records) || labels[labelRestart] != "" { // whatever we were told before
		return ErrOwned
	}
	out, err := output(ctx, ctr, labels[labelLog])
	if err != nil {
		return err
	}
	if err := sweep(ctx, ctr, pid); err != nil {
		return err
	}
	t, err := ctr.NewTask(ctx, out)
	if err != nil {
		return err
	}
	if err := t.Start(ctx); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime) // it may be late, or called off
		defer cancel()
		_, e := t.Delete(ctx, client.WithProcessKill)
		return errors.Join(err, e)
	}
	return nil
}

// output is where a new task's output goes. Only a file is taken: for other URIs
// containerd starts a program of the host, as root. And only from who made the container:
// the labels of an image are those of whoever built it.
func output(ctx context.Context, ctr client.Container, uri string) (cio.Creator, error) {
	if uri == "" {
		return cio.NullIO, nil
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return nil, fmt.Errorf("label %s: %w", labelLog, err)
	case u.Scheme != "file", u.Host != "", !path.IsAbs(u.Path):
		return nil, fmt.Errorf("label %s is %q; only file:///PATH is taken", labelLog, uri)
	}
	if info, err := ctr.Info(ctx); err != nil {
		return nil, err
	} else if info.Image == "" { // no image has said it
		return cio.LogURI(u), nil
	}
	image, err := ctr.Image(ctx)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("label %s: the container's image is gone, so nobody can tell whose label it is; leave it out", labelLog)
	}
	if err != nil {
		return nil, err
	}
	spec, err := image.Spec(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the labels of image %s: %w", image.Name(), err)
	}
	if spec.Config.Labels[labelLog] == uri {
		return nil, fmt.Errorf("label %s is the image's; only who makes the container may say where its output goes", labelLog)
	}
	return cio.LogURI(u), nil
}

// sweep ends and deletes what is left of a container's task, if it is that of process pid.
func sweep(ctx context.Context, ctr client.Container, pid int) error {
	t, err := ctr.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if int(t.Pid()) != pid {
		return errOthers
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
