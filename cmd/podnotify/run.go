package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/config"
)

func newRunCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Start a daemon and serve it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := a.load(c, config.Run, args); err != nil {
				return err
			}
			return exit(exitFailed, errors.New("cannot run: not wired"))
		},
	}
	failUsage(c, exitConfig)
	config.AddFlags(c.Flags())
	c.Flags().SetInterspersed(false)
	return c
}
