package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/ctrd"
	"github.com/podnotify/podnotify/internal/journal"
	"github.com/podnotify/podnotify/internal/logs"
	"github.com/podnotify/podnotify/internal/metrics"
	"github.com/podnotify/podnotify/internal/proc"
	"github.com/podnotify/podnotify/internal/rundir"
	"github.com/podnotify/podnotify/notify"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar"
)

// maxConnections bounds the probe port: kubelet asks for every container of the node,
// each time with a new connection.
const maxConnections = 1024

// gcPercent keeps garbage below half of what lives: a container is a few kilobytes that
// live long, and its answers are none.
const gcPercent = 40

func newServe(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve the containers of this host (default)",
		Long: `Serve every container of containerd that asks for it, by an annotation
podnotify.io/CONTAINER.KEY of its pod or a label podnotify.io/KEY of its own. All of
them speak to the socket RUN-DIR/node/notify; RUN-DIR is /run/podnotify unless
--run-dir says otherwise. Mount the directory RUN-DIR/node into them, read-only, at
/run/podnotify for instance, and set NOTIFY_SOCKET to the socket as they see it:
/run/podnotify/notify.

It runs as root on the host, in its PID and network namespace, with CAP_KILL and
containerd's socket. By default every interface of the host answers, command lines and
status texts, to whoever asks: see --listen.

The exit code is 0, 1 for a failure, or 78 for a bad configuration.`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadNode(c.Flags(), a.environ)
			if err != nil {
				return exit(exitConfig, err)
			}
			log, lines := logs.Serving(a.stderr, cfg.LogLevel, cfg.LogFormat)
			defer lines.Close()
			if err := serve(c.Context(), cfg, log); err != nil {
				return exit(exitFailed, err)
			}
			return nil
		},
	}
	failUsage(c, exitConfig)
	config.AddNodeFlags(c.Flags())
	return c
}

// serve serves until a signal ends it. Daemons run on, and a stopped one stays
// stopped: the next podnotify-node adopts them.
func serve(ctx context.Context, cfg config.NodeConfig, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP) // whoever reads our log may go away

	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	dir, err := rundir.Claim(cfg.RunDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Bound first, and heard once everything is there that it takes to understand.
	socket := filepath.Join(dir.Path, "node", "notify")
	closed, err := dir.ServiceDir(socket)
	if err != nil {
		return err
	}
	rundir.WarnClosed(log, "node", closed)
	node, err := sidecar.NewNode(proc.Proc, socket, 0o666, log)
	if err != nil {
		return err
	}
	// Run ends what was made from here on.
	state, err := journal.Open(dir.State(), proc.Proc, log)
	if err != nil {
		_ = node.Close() // the other error is the one to tell
		return err
	}
	defer state.Close()
	port, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		_ = node.Close() // the other error is the one to tell
		return fmt.Errorf("cannot listen on %s: %w; choose another with --listen", cfg.Listen, err)
	}
	acts, err := control.Listen(dir.Control())
	if err != nil {
		_ = node.Close() // the other error is the one to tell
		port.Close()
		return err
	}

	client := &ctrd.Client{Address: cfg.Containerd, Namespaces: cfg.Namespaces, Log: log}
	g, ctx := errgroup.WithContext(ctx)
	r := newRegistry(ctx, node, dir, state, client, log)
	measures := metrics.New(metrics.Config{Services: r.measured, Labels: labelNames, Degraded: r.degraded, Version: version})
	handler := probes.Handler(probes.Config{Directory: r, Healthy: r.healthy, Metrics: metrics.Handler(measures)})
	server := probes.Server(handler)
	g.Go(func() error { return node.Run(ctx) })
	g.Go(func() error { client.Watch(ctx, r); return nil })
	g.Go(func() error {
		err := server.Serve(probes.Limit(port, maxConnections, r.scarce.Exhausted))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("cannot serve %s: %w", port.Addr(), err)
	})
	g.Go(func() error { return control.Serve(ctx, acts, control.Handler(handler, r.actor().Verbs())) })
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	tell("READY=1")
	defer tell("STOPPING=1")
	log.Info("answering", "address", port.Addr().String(), "run_dir", dir.Path, "notify_socket", node.Env(), "version", version)
	return g.Wait()
}

// tell tells systemd: with Type=notify the sockets are bound before anything starts
// that is ordered after us. Without systemd it does nothing.
func tell(word string) {
	if s, err := notify.FromEnv(); err == nil && s != nil {
		_ = s.Send(word) // nobody has to listen
		s.Close()
	}
}
