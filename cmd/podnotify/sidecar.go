package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// runSidecar serves all services until a signal ends it.
func runSidecar(cfg config.Config, log *slog.Logger) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)

	dir, err := rundir.Claim(cfg.RunDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	scarce := proc.NewDescriptors(log)
	world, err := sidecar.NewWorld(proc.Proc, scarce, log)
	if err != nil {
		return err
	}
	a, err := listen(cfg.Listen, dir, scarce, log)
	if err != nil {
		return err
	}
	defer a.close()
	state, err := journal.Open(dir.State(), proc.Proc, log)
	if err != nil {
		return err
	}
	defer state.Close()
	a.state = state
	restart := make(chan struct{}, 1)
	for _, c := range cfg.Services {
		closed, err := dir.ServiceDir(c.Address)
		if err != nil {
			return err
		}
		rundir.WarnClosed(log, c.Name, closed)
		deps := world.Deps(c, log)
		deps.Journal = state.File(c.Name)
		deps.RestartPod = func() {
			select {
			case restart <- struct{}{}:
			default:
			}
		}
		s, err := sidecar.New(c, deps)
		if err != nil {
			return err
		}
		defer s.Close()
		world.Join(s)
		a.services = append(a.services, s)
	}

	ctx, end := context.WithCancel(context.Background())
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return world.Run(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	for _, s := range a.services {
		g.Go(func() error { return s.Serve(ctx) })
		log.Info("listening for the daemon", "service", s.Name(), "expect", s.Policy().Expect.String(), "notify_socket", s.Env())
	}
	log.Info("answering", "address", a.port.Addr().String(), "run_dir", dir.Path, "version", version)
	var podded bool
	g.Go(func() error {
		defer end()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-restart:
				log.Warn("ending with exit code 79: a RestartAllContainers rule restarts the pod")
				podded = true
				return nil
			case sig := <-signals:
				if sig == unix.SIGHUP {
					log.Warn("cannot reload the configuration; a restart applies it, and what daemons have said is kept")
					continue
				}
				log.Info("going down", "signal", unix.SignalName(sig.(unix.Signal)))
				for _, s := range a.services {
					s.Prestop()
				}
				if sig == unix.SIGTERM {
					a.outlast(ctx, signals)
				}
				return nil
			}
		}
	})
	err = g.Wait()
	if podded && err == nil {
		err = errRestartPod
	}
	return err
}

// errRestartPod asks for exit code 79.
var errRestartPod = errors.New("the pod is to be restarted")

// outlast keeps answering until every daemon has ended or its stop time-out is
// over, extended as it asked, or a second signal says to hurry. A sidecar is told
// to go while its daemons still finish their work.
func (a *answers) outlast(ctx context.Context, signals <-chan os.Signal) {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		alive := false
		for _, s := range a.services {
			n := s.Look()
			alive = alive || n.Main != (lifecycle.ProcID{}) && !n.StopLate
		}
		if !alive {
			return
		}
		select {
		case <-look.C:
		case <-signals:
			return
		case <-ctx.Done():
			return
		}
	}
}
