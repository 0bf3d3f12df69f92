package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
)

// controlWait is how long a verb on the control socket may take, unless it waits
// for the daemon.
const controlWait = 10 * time.Second

// ask has a running podnotify do something, over its control socket.
func (a *app) ask(c *cobra.Command, wait time.Duration, verb string, args url.Values) error {
	dir, err := config.RunDir(c.Flags(), a.environ, os.ReadFile)
	if err != nil {
		return exit(exitConfig, err)
	}
	if dir == "" {
		return exit(exitFailed, errors.New("cannot reach podnotify: it has made a fresh run-dir; give the one it named at start by --run-dir"))
	}
	ctx := c.Context()
	if wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	err = control.Do(ctx, filepath.Join(dir, "control"), verb, args)
	if note, ok := errors.AsType[control.Note](err); ok {
		fmt.Fprintf(a.stderr, "podnotify: %s\n", note)
		return nil
	}
	if err != nil {
		return exit(exitFailed, err)
	}
	return nil
}

func newPrestopCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "prestop",
		Short: "Announce the end to a running podnotify, for a preStop hook",
		Long: `Tell the podnotify that runs with this run-dir that the end is near: every
service enters stopping, and stopped daemons are continued, so that they can
receive their SIGTERM.`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error { return a.ask(c, controlWait, "prestop", nil) },
	}
	failUsage(c, exitUsage)
	config.AddProcessFlags(c.Flags(), "config", "run-dir")
	return c
}

// newActCommands are the commands that act on the main process of a service.
func newActCommands(a *app) []*cobra.Command {
	var signal string
	var noWait bool
	act := func(verb, short, long string) *cobra.Command {
		c := &cobra.Command{
			Use:   verb + " [SERVICE]",
			Short: short,
			Long:  long,
			Args:  atMost(1),
			RunE: func(c *cobra.Command, service []string) error {
				args := url.Values{}
				if len(service) > 0 {
					args.Set("service", service[0])
				}
				if signal != "" {
					args.Set("signal", signal)
				}
				if noWait {
					args.Set("no-wait", "1")
				}
				wait := controlWait
				if waits := verb == "reload" || verb == "stop"; waits && !noWait {
					wait = 0
				}
				return a.ask(c, wait, verb, args)
			},
		}
		failUsage(c, exitUsage)
		config.AddProcessFlags(c.Flags(), "config", "run-dir")
		return c
	}
	reload := act("reload", "Have a daemon reload", `Send signals.reload to the main process of a service, and wait until it has
reloaded, if it tells: RELOADING=1 within a second, and READY=1 after it. That it
did not tell is said, and is no failure. A service that is starting or stopped by a
signal is not reloaded.`)
	stop := act("stop", "End a daemon", `Send signals.kill to the main process of a service, SIGKILL after timeouts.stop,
and wait for its end. It is not respawned by podnotify, also if it has ended and is
about to be; a platform may do so.`)
	respawn := act("respawn", "End a daemon and have it started again", `Send signals.kill to the main process of a service, SIGKILL after timeouts.stop.
What started it starts it again: podnotify run with respawn.mode exec, else the
platform, which restarts the container.`)
	kill := act("kill", "Send a signal to a daemon", `Send a signal to the main process of a service. If it ends of that, podnotify run
starts it again as respawn.when says; see podnotify stop for an end that stays.`)
	kill.Flags().StringVar(&signal, "signal", "TERM", "name or number of the signal")
	for _, c := range []*cobra.Command{reload, stop} {
		c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the daemon")
	}
	return []*cobra.Command{reload, stop, respawn, kill}
}
