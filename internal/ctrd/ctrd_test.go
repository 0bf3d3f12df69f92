package ctrd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/services/namespaces/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/typeurl/v2"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/podnotify/podnotify/internal/proc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// standin answers as containerd does, but can fail and hang at a chosen question, which
// the real one does not do when it is asked to. What containerd says otherwise is tested
// with a real one: test/e2e/node.
type standin struct {
	address string

	mu     sync.Mutex
	all    []*containers.Container
	tasks  []*task.Process
	now    map[string]*task.Process // what Get says, if not what List does
	before func(ctx context.Context, method string) error
	broken chan struct{} // ends the stream of events
}

func start(t *testing.T) *standin {
	t.Helper()
	s := &standin{address: filepath.Join(t.TempDir(), "s"), broken: make(chan struct{}), now: map[string]*task.Process{}}
	l, err := net.Listen("unix", s.address)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		s.mu.Lock()
		before := s.before
		s.mu.Unlock()
		if before != nil {
			if err := before(ctx, info.FullMethod[strings.LastIndex(info.FullMethod[:strings.LastIndex(info.FullMethod, "/")], ".")+1:]); err != nil {
				return nil, err
			}
		}
		return handle(ctx, r)
	}))
	containers.RegisterContainersServer(g, containerServer{standin: s})
	tasks.RegisterTasksServer(g, taskServer{standin: s})
	events.RegisterEventsServer(g, eventServer{standin: s})
	namespaces.RegisterNamespacesServer(g, namespaceServer{})
	version.RegisterVersionServer(g, versionServer{})
	done := make(chan struct{})
	go func() { _ = g.Serve(l); close(done) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return s
}

// Their methods have the same names.
type (
	containerServer struct {
		*standin
		containers.UnimplementedContainersServer
	}
	taskServer struct {
		*standin
		tasks.UnimplementedTasksServer
	}
	eventServer struct {
		*standin
		events.UnimplementedEventsServer
	}
	namespaceServer struct {
		namespaces.UnimplementedNamespacesServer
	}
	versionServer struct {
		version.UnimplementedVersionServer
	}
)

func (versionServer) Version(context.Context, *emptypb.Empty) (*version.VersionResponse, error) {
	return &version.VersionResponse{Version: "1"}, nil
}

func (namespaceServer) List(context.Context, *namespaces.ListNamespacesRequest) (*namespaces.ListNamespacesResponse, error) {
	return &namespaces.ListNamespacesResponse{Namespaces: []*namespaces.Namespace{{Name: spaceCRI}}}, nil
}

func (s containerServer) List(context.Context, *containers.ListContainersRequest) (*containers.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &containers.ListContainersResponse{Containers: slices.Clone(s.all)}, nil
}

func (s containerServer) Get(_ context.Context, r *containers.GetContainerRequest) (*containers.GetContainerResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		if c.ID == r.ID {
			return &containers.GetContainerResponse{Container: c}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (s taskServer) List(context.Context, *tasks.ListTasksRequest) (*tasks.ListTasksResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &tasks.ListTasksResponse{Tasks: slices.Clone(s.tasks)}, nil
}

func (s taskServer) Get(_ context.Context, r *tasks.GetRequest) (*tasks.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.now[r.ContainerID]; t != nil {
		return &tasks.GetResponse{Process: t}, nil
	}
	for _, t := range s.tasks {
		if t.ID == r.ContainerID {
			return &tasks.GetResponse{Process: t}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such task")
}

func (s eventServer) Subscribe(_ *events.SubscribeRequest, to events.Events_SubscribeServer) error {
	select {
	case <-s.broken:
		return status.Error(codes.Unavailable, "going down")
	case <-to.Context().Done():
		return nil
	}
}

// fail has a question answered by an error, or by whatever f does. nil: none.
func (s *standin) fail(f func(ctx context.Context, method string) error) {
	s.mu.Lock()
	s.before = f
	s.mu.Unlock()
}

// plain adds a container that asks to be served.
func (s *standin) plain(id string, made time.Time) {
	s.all = append(s.all, &containers.Container{ID: id, Labels: map[string]string{Prefix + "expect": "notify"}, CreatedAt: timestamppb.New(made)})
}

// pod adds a sandbox and a container of it.
func (s *standin) pod(id string) {
	spec := `{"annotations": {"io.kubernetes.cri.sandbox-id": "sandbox-` + id + `"}}`
	meta := `{"Metadata": {"Config": {"annotations": {"podnotify.io/c.expect": "notify"}}}}`
	asked := `{"Metadata": {"Config": {"labels": {"podnotify.io/expect": "stop", "podnotify.io/respawn.limit": "3"}}}}`
	s.all = append(s.all,
		&containers.Container{ID: "sandbox-" + id, Labels: map[string]string{labelKind: "sandbox"}, Extensions: map[string]*anypb.Any{extensionSandbox: {TypeUrl: "x", Value: []byte(meta)}}},
		&containers.Container{ID: id, Spec: &anypb.Any{TypeUrl: "x", Value: []byte(spec)},
			Extensions: map[string]*anypb.Any{extensionRequest: {TypeUrl: "x", Value: []byte(asked)}},
			Labels:     map[string]string{labelKind: "container", labelPodNamespace: "n", labelPodName: "p", labelContainer: "c", Prefix + "job": "of-the-image"}})
}

// heard is what a handler was told.
type heard struct {
	mu   sync.Mutex
	news []string
	full int           // so many times there is no room for a first process
	cond chan struct{} // one at most
}

func watch(t *testing.T, address string) *heard {
	t.Helper()
	return watchFull(t, address, 0)
}

func watchFull(t *testing.T, address string, times int) *heard {
	t.Helper()
	h := &heard{cond: make(chan struct{}, 1), full: times}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		(&Client{Address: address, Log: slog.New(slog.DiscardHandler)}).Watch(ctx, h)
		close(done)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return h
}

func (h *heard) tell(format string, args ...any) {
	h.mu.Lock()
	h.news = append(h.news, fmt.Sprintf(format, args...))
	h.mu.Unlock()
	select {
	case h.cond <- struct{}{}:
	default:
	}
}

func (h *heard) take(format string, k Key) error {
	h.tell(format, k.ID)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full == 0 {
		return nil
	}
	h.full--
	return unix.EMFILE
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.news)
}

// until waits for so many of a word.
func (h *heard) until(t *testing.T, word string, n int) []string {
	t.Helper()
	end := time.After(time.Minute)
	for {
		all, found := h.all(), 0
		for _, w := range all {
			if strings.HasPrefix(w, word) {
				found++
			}
		}
		if found >= n {
			return all
		}
		select {
		case <-h.cond:
		case <-end:
			t.Fatalf("%d times %q was not told: %q", n, word, all)
		}
	}
}

func (h *heard) Container(c Container)                      { h.tell("container %s %v", c.ID, c.Options) }
func (h *heard) Created(k Key, _ proc.ID) error             { return h.take("created %s", k) }
func (h *heard) Started(k Key, _ proc.ID) error             { return h.take("started %s", k) }
func (h *heard) Exited(k Key, _ int, status uint32, _ bool) { h.tell("exited %s %d", k.ID, status) }
func (h *heard) OutOfMemory(k Key)                          { h.tell("out of memory %s", k.ID) }
func (h *heard) Stopped(k Key)                              { h.tell("stopped %s", k.ID) }
func (h *heard) Removed(k Key)                              { h.tell("removed %s", k.ID) }
func (h *heard) Connected(yes bool, reason error)           { h.tell("connected %v", yes) }

// TestOrder: containerd lists by id. Of two containers with one name in a pod the newer
// one is told last.
func TestOrder(t *testing.T) {
	s := start(t)
	now := time.Unix(1e9, 0)
	s.plain("a", now.Add(time.Second))
	s.plain("b", now.Add(2*time.Second))
	s.plain("c", now)
	got := watch(t, s.address).until(t, "connected true", 1)
	want := []string{"container c", "container a", "container b"}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], w) {
			t.Fatalf("told %q, want %q first", got, want)
		}
	}
}

// TestFails: containerd goes away in the middle of an answer. What was served is not
// removed by it.
func TestFails(t *testing.T) {
	for _, method := range []string{"Namespaces/List", "Containers/List", "Containers/Get", "Tasks/List"} {
		t.Run(method, func(t *testing.T) {
			s := start(t)
			s.pod("a")
			h := watch(t, s.address)
			h.until(t, "connected true", 1)
			s.fail(func(_ context.Context, m string) error {
				if strings.HasSuffix(m, method) {
					return status.Error(codes.Unavailable, "going down")
				}
				return nil
			})
			s.broken <- struct{}{}
			h.until(t, "connected false", 2)
			s.fail(nil)
			all := h.until(t, "connected true", 2)
			if slices.Contains(all, "removed a") {
				t.Errorf("told %q", all)
			}
			s.mu.Lock()
			s.all = nil
			s.mu.Unlock()
			s.broken <- struct{}{}
			h.until(t, "removed a", 1)
		})
	}
}

// TestHangs: a containerd that does not answer has gone away, too.
func TestHangs(t *testing.T) {
	for _, method := range []string{"Version/Version", "Containers/List", "Containers/Get", "Tasks/Get"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			s.pod("a")
			s.tasks = []*task.Process{{ID: "a", Pid: uint32(os.Getpid()), Status: task.Status_RUNNING}}
			s.fail(func(ctx context.Context, m string) error {
				if strings.HasSuffix(m, method) {
					<-ctx.Done()
				}
				return ctx.Err() // or it may seem to have answered in time
			})
			h := watch(t, s.address)
			if all := h.until(t, "connected", 1); !slices.Contains(all, "connected false") || slices.Contains(all, "connected true") {
				t.Errorf("told %q", all)
			}
			s.fail(nil)
			h.until(t, "connected true", 1)
		})
	}
}

// TestTask: a number that containerd names is believed while it is a living process of
// this task only.
func TestTask(t *testing.T) {
	s := start(t)
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	self := uint32(os.Getpid())
	now := time.Unix(1e9, 0)
	for i, c := range []struct {
		id        string
		list, get *task.Process
	}{
		{"running", &task.Process{Pid: self, Status: task.Status_RUNNING}, nil},
		{"created", &task.Process{Pid: self, Status: task.Status_CREATED}, nil},
		{"ended", &task.Process{Pid: uint32(cmd.Process.Pid), Status: task.Status_RUNNING}, nil},
		{"stopped", &task.Process{Pid: self, Status: task.Status_RUNNING}, &task.Process{Pid: self, Status: task.Status_STOPPED}},
		{"another", &task.Process{Pid: self, Status: task.Status_RUNNING}, &task.Process{Pid: self + 1, Status: task.Status_RUNNING}},
	} {
		s.plain(c.id, now.Add(time.Duration(i)))
		c.list.ID = c.id
		s.tasks = append(s.tasks, c.list)
		if c.get != nil {
			s.now[c.id] = c.get
		}
	}
	all := watch(t, s.address).until(t, "connected true", 1)
	var got []string
	for _, w := range all {
		if !strings.HasPrefix(w, "container ") && !strings.HasPrefix(w, "connected") {
			got = append(got, w)
		}
	}
	if want := []string{"started running", "created created"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestToldAgain: a first process for which there is no room is told again, until there is.
func TestToldAgain(t *testing.T) {
	s := start(t)
	s.plain("a", time.Unix(1e9, 0))
	s.tasks = []*task.Process{{ID: "a", Pid: uint32(os.Getpid()), Status: task.Status_RUNNING}}
	all := watchFull(t, s.address, 2).until(t, "connected true", 1)
	var got []string
	for _, w := range all {
		if !strings.HasPrefix(w, "container ") {
			got = append(got, w)
		}
	}
	if want := []string{"started a", "connected false", "started a", "connected false", "started a", "connected true"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestLabels: what an image says of itself makes no container one of CRI, and is not
// heard of one that is, as the labels are that CRI was asked for. The pod's word is the
// stronger one.
func TestLabels(t *testing.T) {
	s := start(t)
	s.pod("a")
	s.pod("b")
	injected := s.all[len(s.all)-2].Extensions[extensionSandbox]
	injected.Value = []byte(strings.Replace(string(injected.Value), `"annotations"`, `"labels": {"podnotify.io/inject": "true"}, "annotations"`, 1))
	all := watch(t, s.address).until(t, "connected true", 1)
	if slices.ContainsFunc(all, func(w string) bool { return strings.HasPrefix(w, "container b ") }) {
		t.Errorf("told %q of a pod that has a sidecar", all)
	}
	if !slices.Contains(all, "container a map[expect:notify respawn.limit:3]") {
		t.Errorf("told %q", all)
	}
	forged := map[string]string{labelKind: "container", labelPodName: "p"}
	record := map[string]typeurl.Any{extensionRequest: &anypb.Any{}}
	if ofCRI(Key{"default", "x"}, forged, record) || ofCRI(Key{spaceCRI, "x"}, forged, nil) || !ofCRI(Key{spaceCRI, "x"}, forged, record) {
		t.Error("CRI's containers are those of its namespace of which it has a record")
	}
}

// TestRespawnCalledOff: nobody waits for a containerd that hangs.
func TestRespawnCalledOff(t *testing.T) {
	s := start(t)
	asked := make(chan struct{}, 1)
	s.fail(func(ctx context.Context, _ string) error {
		asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-asked; cancel() }()
	err := (&Client{Address: s.address, Log: slog.New(slog.DiscardHandler)}).Respawn(ctx, Key{"default", "x"}, 1)
	if err == nil || errors.Is(err, ErrGone) || ctx.Err() == nil {
		t.Errorf("it says %v", err)
	}
}
