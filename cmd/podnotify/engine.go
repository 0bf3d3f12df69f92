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
	"github.com/podnotify/podnotify/internal/supervise"
	"github.com/podnotify/podnotify/sidecar"
)

func newSidecarCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "sidecar [flags]",
		Short: "Listen to daemons that others start, in containers beside this one",
		Long: `Listen to daemons that others start, in containers beside this one, and answer
probes about them. It starts nothing: that is podnotify run. A daemon needs
NOTIFY_SOCKET (or UPSTART_JOB, for --expect stop) in its own environment; the
log says the socket. The exit code is 78 for a bad configuration.`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.start(c, config.Sidecar, nil, func(cfg config.Config, log *slog.Logger) (int, error) {
				if err := runSidecar(cfg, log); err != nil {
					return exitFailed, err
				}
				return 0, nil
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
		Short: "Start a daemon, listen to it and answer probes about it",
		Long: `Start CMD, listen to it and answer probes about it. CMD finds NOTIFY_SOCKET or
UPSTART_JOB in its environment, as --expect asks, and gets the signals that are
sent to podnotify. It must stay in the foreground. The exit code is CMD's own,
128 + n if signal n ended it, 127 or 126 if it cannot be started, and 78 for a
bad configuration.`,
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

// start loads the configuration, makes a run-dir if there is none to be had, and
// serves until that ends with a code.
func (a *app) start(c *cobra.Command, mode config.Mode, command []string, serve func(config.Config, *slog.Logger) (int, error)) error {
	cfg, err := a.load(c, mode, command)
	if err != nil {
		return err
	}
	log, lines := newLogger(a.stderr, cfg.LogLevel, cfg.LogFormat)
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
	lines.close()
	if errors.Is(err, sidecar.ErrNoPidfd) {
		code = exitConfig
	}
	if code == 0 && err == nil {
		return nil
	}
	return exit(code, err)
}
