package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
)

func newHealthcheckCommand(a *app) *cobra.Command {
	check := ask.Check{Question: "ready"}
	c := &cobra.Command{
		Use:   "healthcheck [flags] [bound|startup|ready|live]",
		Short: "Ask a running podnotify once, for HEALTHCHECK and exec probes",
		Long: `Ask a running podnotify one question, by default ready, and print its answer
on one line. The exit code is 0 for yes and 1 for everything else. podnotify has
2s to answer: give the probe more than that, or it is cut short.

podnotify-healthcheck is the same, and starts faster: what is asked every few
seconds should use that.`,
		ValidArgs: []string{"bound", "startup", "ready", "live"},
		Args:      atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				check.Question = args[0]
			}
			if check.Service == "" && check.Question != "bound" {
				check.Service = a.getenv("PODNOTIFY_SERVICE")
			}
			line, yes, err := check.Run(a.getenv("PODNOTIFY_ADDRESS"))
			if err != nil {
				return exit(exitFailed, err)
			}
			fmt.Fprintln(a.stdout, line)
			if !yes {
				return exit(exitFailed, nil)
			}
			return nil
		},
	}
	failUsage(c, exitFailed)
	addAddressFlag(c, &check.Address)
	c.Flags().StringVar(&check.Service, "service", "", "ask about one service (default $PODNOTIFY_SERVICE, else all)")
	c.Flags().DurationVar(&check.Wait, "wait", 0, "ask again for so long until the answer is yes")
	c.Flags().BoolVar(&check.FailOpen, "fail-open", false, "count it as yes if podnotify refuses, resets or does not answer in time")
	return c
}
