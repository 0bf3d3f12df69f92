package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/config"
)

func newSidecarCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "sidecar",
		Short: "Serve daemons in containers beside this one",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if _, err := a.load(c, config.Sidecar, nil); err != nil {
				return err
			}
			return exit(exitFailed, errors.New("cannot serve: not wired"))
		},
	}
	failUsage(c, exitConfig)
	config.AddFlags(c.Flags())
	return c
}
