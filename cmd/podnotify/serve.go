package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/metrics"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar"
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
	state    *journal.Dir
	scarce   *proc.Descriptors
}

func listen(address string, dir *rundir.Dir, scarce *proc.Descriptors, log *slog.Logger) (*answers, error) {
	a := &answers{log: log, scarce: scarce}
	var err error
	// A connection lives for a minute at most: probing it in between is of no use.
	tcp := net.ListenConfig{KeepAlive: -1}
	if a.port, err = tcp.Listen(context.Background(), "tcp", address); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("cannot listen on %s: another process listens there%s; choose another with --listen", address, whoListens(address))
		}
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another with --listen", address, reason(err))
	}
	if a.control, err = control.Listen(dir.Control()); err != nil {
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

// connections is how many may be open at a time. They leave most descriptors to those
// that processes are held by, where there are few.
func connections() int { return int(min(maxConnections, proc.DescriptorLimit()/4)) }

// exhausted reports whether an error says that there is no descriptor left. Services
// then give those up that they can do without.
func (a *answers) exhausted(err error) bool {
	if !a.scarce.Exhausted(err) {
		return false
	}
	for _, s := range a.services {
		s.Spare()
	}
	return true
}

// degraded names podnotify's own troubles for podnotify_degraded.
func (a *answers) degraded() map[string]bool {
	out := map[string]bool{"state": a.state.Trouble() != nil, "descriptors": a.scarce.Trouble() != nil, "pidfd": false, "proc": false}
	for _, s := range a.services {
		for what := range s.Look().Facts.Degraded {
			out[what] = true
		}
	}
	return out
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
	server := light(probes.Server(handler), len(a.services))
	verbs := control.Actor{All: a.all, Named: a.named, Signal: config.Signal}.Verbs()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := server.Serve(probes.Limit(a.port, connections(), a.exhausted))
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

func (a *answers) all() []control.Service {
	out := make([]control.Service, len(a.services))
	for i, s := range a.services {
		out[i] = s
	}
	return out
}

func (a *answers) named(name string) control.Service {
	for _, s := range a.services {
		if s.Name() == name {
			return s
		}
	}
	return nil
}

func (a *answers) close() {
	a.port.Close()
	a.control.Close()
}
