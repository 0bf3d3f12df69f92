package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/metrics"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// maxConnections bounds the probe port: kubelet, a scraper and a person need a
// handful.
const maxConnections = 256

// answers is everything that is asked over HTTP: the probe port and the control
// socket. Both are bound before a daemon can speak.
type answers struct {
	services []*sidecar.Service
	port     net.Listener
	control  net.Listener
	log      *slog.Logger
	degraded func() map[string]bool // our own troubles, by name
}

func listen(address string, dir *runDir, log *slog.Logger) (*answers, error) {
	a := &answers{log: log}
	var err error
	if a.port, err = net.Listen("tcp", address); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("cannot listen on %s: another process listens there%s; choose another with --listen", address, whoListens(address))
		}
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another with --listen", address, reason(err))
	}
	if a.control, err = control.Listen(dir.control()); err != nil {
		a.port.Close()
		return nil, err
	}
	return a, nil
}

// reason is a network error without the operation and address around it.
func reason(err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// degraded names podnotify's own troubles for podnotify_degraded.
func degraded(state *journal.Dir) func() map[string]bool {
	return func() map[string]bool { return map[string]bool{"state": state.Trouble() != nil} }
}

func (a *answers) healthy() error {
	for _, s := range a.services {
		if err := s.Healthy(); err != nil {
			return err
		}
	}
	return nil
}

// serve answers until ctx is done.
func (a *answers) serve(ctx context.Context) error {
	sources := make([]probes.Source, len(a.services))
	counted := make([]metrics.Source, len(a.services))
	for i, s := range a.services {
		sources[i], counted[i] = s, s
	}
	registry := metrics.New(metrics.Config{Services: func() []metrics.Source { return counted }, Degraded: a.degraded, Version: version})
	handler := probes.Handler(probes.Config{Services: sources, Healthy: a.healthy, Metrics: metrics.Handler(registry)})
	server := probes.Server(handler)
	verbs := control.Verbs{"prestop": a.prestop, "reload": a.reload, "stop": a.stop, "respawn": a.respawn, "kill": a.kill}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := server.Serve(probes.Limit(a.port, maxConnections))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("cannot serve %s: %w", a.port.Addr(), err)
	})
	g.Go(func() error { return control.Serve(ctx, a.control, control.Handler(handler, verbs)) })
	g.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			server.Close()
		}
		return nil
	})
	return g.Wait()
}

func (a *answers) prestop(context.Context, url.Values) error {
	for _, s := range a.services {
		s.Prestop()
	}
	return nil
}

// pick finds the service that a verb is about.
func (a *answers) pick(args url.Values) (*sidecar.Service, error) {
	name := args.Get("service")
	if name == "" && len(a.services) == 1 {
		return a.services[0], nil
	}
	var names []string
	for _, s := range a.services {
		if s.Name() == name {
			return s, nil
		}
		names = append(names, s.Name())
	}
	if name == "" {
		return nil, fmt.Errorf("cannot choose a service: there are %s; name one", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("cannot find service %q: there are %s", name, strings.Join(names, ", "))
}

// settled waits until the service is as done says, looking often: this is for
// people and scripts that wait anyway.
func settled(ctx context.Context, s *sidecar.Service, done func(*lifecycle.Snapshot) bool) error {
	for !done(s.Look()) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func (a *answers) reload(ctx context.Context, args url.Values) error {
	s, err := a.pick(args)
	if err != nil {
		return err
	}
	before := s.Look()
	if err := s.Reload(); err != nil || args.Get("no-wait") != "" {
		return err
	}
	// A daemon that does not tell is given a moment to begin, as upstart gives
	// it none at all.
	const moment = time.Second
	begin, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	over := func(n *lifecycle.Snapshot) bool { return n.Main != before.Main || n.Phase == lifecycle.Stopping }
	if settled(begin, s, func(n *lifecycle.Snapshot) bool { return n.Reload.Began || over(n) }) != nil {
		return nil
	}
	if err := settled(ctx, s, func(n *lifecycle.Snapshot) bool { return n.Reload.Done || n.ReloadLate || over(n) }); err != nil {
		return err
	}
	switch n := s.Look(); {
	case n.ReloadLate && !n.Reload.Done:
		return fmt.Errorf("cannot see service %s reloaded: no READY=1 within %v", s.Name(), s.Policy().ReloadTimeout)
	case over(n) && n.Phase != lifecycle.Ready:
		return fmt.Errorf("cannot see service %s reloaded: it is %v", s.Name(), n.Phase)
	}
	return nil
}

func (a *answers) stop(ctx context.Context, args url.Values) error {
	s, err := a.pick(args)
	if err != nil {
		return err
	}
	main := s.Look().Main
	if err := s.Stop(); err != nil || args.Get("no-wait") != "" {
		return err
	}
	return settled(ctx, s, func(n *lifecycle.Snapshot) bool { return n.Main != main })
}

func (a *answers) respawn(_ context.Context, args url.Values) error {
	s, err := a.pick(args)
	if err != nil {
		return err
	}
	return s.Respawn()
}

func (a *answers) kill(_ context.Context, args url.Values) error {
	s, err := a.pick(args)
	if err != nil {
		return err
	}
	sig, err := config.Signal(args.Get("signal"))
	if err != nil {
		return err
	}
	return s.Kill(sig)
}

func (a *answers) close() {
	a.port.Close()
	a.control.Close()
}
