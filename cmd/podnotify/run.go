package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/internal/supervise"
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// runRun starts the daemon, supervises it and serves its probes. It returns the
// daemon's exit code.
func runRun(cfg config.Config, command []string, environ []string, log *slog.Logger) (int, error) {
	c := cfg.Services[0]
	dir, err := rundir.Claim(cfg.RunDir)
	if err != nil {
		return 1, err
	}
	defer dir.Close()
	if cfg.Booted {
		if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
			return 1, fmt.Errorf("cannot make /run/systemd/system for --booted: %w", rundir.Bare(err))
		}
	}
	closed, err := dir.ServiceDir(c.Address)
	if err != nil {
		return 1, err
	}
	rundir.WarnClosed(log, c.Name, closed)
	state, err := journal.Open(dir.State(), proc.Proc, log)
	if err != nil {
		return 1, err
	}
	defer state.Close()
	kept := state.File(c.Name)
	if err := orphaned(kept, log); err != nil {
		return 1, err
	}
	scarce := proc.NewDescriptors(log)
	family, err := sidecar.NewFamily(proc.Proc, scarce)
	if err != nil {
		return 1, err
	}
	a, err := listen(cfg.Listen, dir, scarce, log)
	if err != nil {
		return 1, err
	}
	defer a.close()

	turns := make(chan supervise.Turn, 4)
	a.state = state
	deps := family.Deps(log)
	deps.Journal = kept
	var service *sidecar.Service
	deps.Gone = func(x lifecycle.LastExit, again bool) { turns <- supervise.Turn{Exit: told(service, x), Again: again} }
	deps.Start = func() { turns <- supervise.Turn{Start: true} }
	if service, err = sidecar.New(c, deps); err != nil {
		return 1, err
	}
	defer service.Close()
	family.Join(service)
	a.services = []*sidecar.Service{service}

	ctx, end := context.WithCancel(context.Background())
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	daemon, err := supervise.Start(supervise.Config{
		Args: command, Env: environment(environ, c, service.Env()), KillSignal: c.KillSignal, StopTimeout: c.Policy.StopTimeout,
		Respawns: c.Policy.Respawn.Mode == lifecycle.RespawnExec, Stored: service.Stored, Begun: family.Begin, Log: log,
	}, family)
	if err != nil {
		return 1, err
	}
	g.Go(func() error { return family.Run(ctx) })
	g.Go(func() error { return service.Serve(ctx) })
	g.Go(func() error { return a.serve(ctx) })
	log.Info("daemon started", "service", c.Name, "pid", daemon.PID(), "expect", c.Policy.Expect.String(), "address", a.port.Addr().String())
	code := 1
	g.Go(func() error {
		defer end()
		exit, err := daemon.Run(ctx, turns)
		code = exit.Status()
		if snap := service.Look(); err == nil && snap.LimitHit {
			code = max(code, 1)
		}
		return err
	})
	err = g.Wait()
	if service.Look().Main == (lifecycle.ProcID{}) { // it is all over
		state.Close()
		kept.Remove()
	}
	if err != nil {
		return 1, err
	}
	return code, nil
}

// orphaned refuses to start a daemon beside the one that an earlier podnotify run
// has left behind: it cannot become that one's parent again.
func orphaned(kept *journal.File, log *slog.Logger) error {
	r, err := kept.Read()
	if err != nil {
		log.Warn(err.Error())
	}
	if r == nil {
		return nil
	}
	world, h := kept.Look(proc.Proc, r)
	if h == nil {
		return nil
	}
	defer h.Close()
	if r.Judge(world, r.State.Expect) != journal.Proven {
		return nil
	}
	cmd, _ := proc.Proc.Cmdline(r.Main.PID)
	return fmt.Errorf("cannot start service %s: process %d (%s) of the last podnotify still runs; end it first (kill %d), or name another directory with --run-dir",
		r.Service, r.Main.PID, cmd, r.Main.PID)
}

// told is how the main process ended. One that was not our child is reaped by
// its own parent first; then the kernel tells us, too (Linux 6.15).
func told(s *sidecar.Service, x lifecycle.LastExit) proc.Exit {
	for wait := time.Now().Add(time.Second); !x.Known && time.Now().Before(wait); time.Sleep(5 * time.Millisecond) {
		if last := s.Look().LastExit; last != nil && last.Who == x.Who {
			x = *last
		}
	}
	if !x.Known {
		return proc.Exit{Code: 1} // it may have failed, and 0 would say that it did not
	}
	return proc.Exit{Code: x.Code, Signal: unix.Signal(x.Signal)}
}

// environment is what the daemon gets: ours, without what our own manager said
// to us, and with what its way of being ready needs.
func environment(environ []string, c sidecar.Config, socket string) []string {
	var out []string
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "UPSTART_JOB", "UPSTART_INSTANCE", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "MAINPID", "FDSTORE":
		default:
			out = append(out, kv)
		}
	}
	job := c.Job
	switch c.Policy.Expect {
	case lifecycle.ExpectNotify:
		out = append(out, "NOTIFY_SOCKET="+socket)
		job = ""
	case lifecycle.ExpectAuto:
		out = append(out, "NOTIFY_SOCKET="+socket)
	case lifecycle.ExpectStop:
		if job == "" {
			job = c.Name
		}
	default:
		job = ""
		if c.Policy.Watchdog > 0 || c.FDStoreMax > 0 { // or nobody would hear the pings
			out = append(out, "NOTIFY_SOCKET="+socket)
		}
	}
	if c.FDStoreMax > 0 {
		out = append(out, "FDSTORE="+strconv.Itoa(c.FDStoreMax))
	}
	if job != "" {
		out = append(out, "UPSTART_JOB="+job)
	}
	if c.Policy.Watchdog > 0 {
		// Without WATCHDOG_PID: unset it is not checked, and we cannot know the
		// pid of a daemon that a wrapper starts.
		out = append(out, "WATCHDOG_USEC="+strconv.FormatInt(c.Policy.Watchdog.Microseconds(), 10))
	}
	return out
}
