package main

import (
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/supervise"
)

func newPauseCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "pause",
		Short: "Hold a PID namespace for others and reap what they leave behind",
		Long: `Be the first process of a PID namespace that a daemon and podnotify sidecar both
join, as the pause container of a pod is: reap orphans, and nothing else. It
ends with code 0 at SIGTERM or SIGINT, and the kernel then ends what is left in
the namespace.`,
		Args: atMost(0),
		RunE: func(*cobra.Command, []string) error {
			if os.Getpid() != 1 {
				a.complain("warning: pause is process " + strconv.Itoa(os.Getpid()) + ", not 1: it holds no PID namespace and reaps nothing")
			}
			supervise.Pause()
			return nil
		},
	}
	failUsage(c, exitFailed)
	return c
}
