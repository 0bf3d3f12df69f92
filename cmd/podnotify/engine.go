package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/logs"
	"github.com/podnotify/podnotify/internal/supervise"
	"github.com/podnotify/podnotify/sidecar"
)

func newSidecarCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "sidecar [flags]",
		Short: "Serve daemons that others start, in containers beside this one",
		Long: `Listen to one or more daemons in containers beside this one, whose PID namespace
is shared, and answer their probes. On SIGTERM stopped daemons are continued, and
probes are answered until all have ended or timeouts.stop is over.

The exit code is 0, 1 for a failure, 78 for a bad configuration, or 79 to have the
pod restarted (respawn.mode pod).`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.start(c, config.Sidecar, nil, func(cfg config.Config, log *slog.Logger) (int, error) {
				switch err := runSidecar(cfg, log); err {
				case nil:
					return 0, nil
				case errRestartPod:
					return exitRestartPod, nil
				default:
					return exitFailed, err
				}
			})
		},
	}
	failUsage(c, exitConfig)
	config.AddFlags(c.Flags())
	return c
}

func newRunCommand(a *app) *cobra.Command {
	var booted bool
	c := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Start a daemon and serve it",
		Long: `Start CMD as a daemon, supervise it and answer its probes. Signals are handed on
to its main process. With respawn.mode exec it is started again when it ends, as
respawn.when says. It is all over when the main process and what it left behind
have ended.

The exit code is the one of the main process, 128+n if signal n ended it; 126 or
127 if CMD cannot be started; 1 for a failure; 78 for a bad configuration.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("there is no command to start")
			}
			return nil
		},
		RunE: func(c *cobra.Command, command []string) error {
			return a.start(c, config.Run, command, func(cfg config.Config, log *slog.Logger) (int, error) {
				cfg.Booted = booted
				code, err := runRun(cfg, command, a.environ, log)
				if s, ok := errors.AsType[*supervise.StartError](err); ok {
					code = s.Code()
				}
				return code, err
			})
		},
	}
	failUsage(c, exitConfig)
	c.Flags().BoolVar(&booted, "booted", false, "make /run/systemd/system, without which some daemons say nothing")
	config.AddFlags(c.Flags())
	c.Flags().SetInterspersed(false) // what follows CMD is CMD's
	return c
}

// withdraw closes a sidecar to others of its uid: a daemon that runs as the same user
// in a shared PID namespace would reach our files by /proc/PID/root, and our memory and
// descriptors by ptrace. Only CAP_SYS_PTRACE opens them then. Not with run: the daemon has
// all that is ours as it is, and may write to our standard output as /proc/1/fd/1.
func withdraw() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it cannot fail, but in a sandbox; then all is as it was
}

// start loads the configuration, and leaves it to serve what is wanted, by a.job.
func (a *app) start(c *cobra.Command, mode config.Mode, command []string, serve func(config.Config, *slog.Logger) (int, error)) error {
	a.travelLight(mode)
	if mode == config.Sidecar {
		withdraw()
	}
	cfg, err := a.load(c, mode, command)
	if err != nil {
		return err
	}
	a.job = func() error { return a.live(cfg, serve) }
	return nil
}

// live makes a run-dir if there is none to be had, and serves until that ends with a code.
func (a *app) live(cfg config.Config, serve func(config.Config, *slog.Logger) (int, error)) error {
	log, lines := logs.Serving(a.stderr, cfg.LogLevel, cfg.LogFormat)
	// Whoever reads our log may go away, which must not end us and leave the
	// daemon alone. Caught, not ignored: the daemon would inherit that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	defer signal.Stop(broken)
	if cfg.RunDir == "" {
		dir, err := os.MkdirTemp("", "podnotify-")
		if err != nil {
			return exit(exitFailed, fmt.Errorf("cannot make a run-dir: %w; name one by --run-dir", err))
		}
		defer os.RemoveAll(dir) // nobody else can find what is in it
		if err := cfg.UseRunDir(dir); err != nil {
			return exit(exitConfig, err)
		}
		log.Info("made a run-dir", "run_dir", dir)
	}
	code, err := serve(cfg, log)
	lines.Close()
	if errors.Is(err, sidecar.ErrNoPidfd) {
		code = exitConfig
	}
	if code == 0 && err == nil {
		return nil
	}
	return exit(code, err)
}
