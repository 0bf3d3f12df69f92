package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
)

// controlWait is how long a verb on the control socket may take.
const controlWait = 10 * time.Second

func newPrestopCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "prestop",
		Short: "Announce the end to a running podnotify, for a preStop hook",
		Long: `Tell the podnotify that runs with this run-dir that the end is near: every
service enters stopping, and stopped daemons are continued, so that they can
receive their SIGTERM.`,
		Args: atMost(0),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := config.RunDir(c.Flags(), a.environ, os.ReadFile)
			if err != nil {
				return exit(exitConfig, err)
			}
			if dir == "" {
				return exit(exitFailed, errors.New("cannot reach podnotify: it has made a fresh run-dir; give the one it named at start by --run-dir"))
			}
			ctx, cancel := context.WithTimeout(c.Context(), controlWait)
			defer cancel()
			if err := control.Do(ctx, filepath.Join(dir, "control"), "prestop", nil); err != nil {
				return exit(exitFailed, err)
			}
			return nil
		},
	}
	failUsage(c, exitUsage)
	config.AddProcessFlags(c.Flags(), "config", "run-dir")
	return c
}
