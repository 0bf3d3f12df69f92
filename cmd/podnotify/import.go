package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/initfile"
	"github.com/podnotify/podnotify/internal/rundir"
)

func newConfigImportCommand(a *app) *cobra.Command {
	var mode string
	c := &cobra.Command{
		Use:   "import [--mode MODE] FILE",
		Short: "Translate a systemd unit or an upstart job",
		Long: `Translate a systemd unit (NAME.service) or an upstart job (NAME.conf) into a
configuration, and print it. Comments tell of each line what it has become, or
why it has no counterpart. A unit as systemd sees it, drop-ins included:
  systemctl cat NAME > NAME.service`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			way, err := modeOf(mode)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(args[0])
			if err != nil {
				return exit(exitConfig, fmt.Errorf("cannot read %s: %w", args[0], rundir.Bare(err)))
			}
			result, err := initfile.Import(args[0], text, way)
			if err != nil {
				return exit(exitConfig, err)
			}
			if _, err := a.stdout.Write(result.YAML); err != nil {
				return exit(exitFailed, fmt.Errorf("cannot write the configuration: %w", rundir.Bare(err)))
			}
			if n := len(result.Warnings); n > 0 || result.Dropped > 0 {
				a.complain(fmt.Sprintf("%s, %s without a counterpart; the comments name them", number(n, "warning"), number(result.Dropped, "line")))
			}
			return nil
		},
	}
	failUsage(c, exitConfig)
	c.Flags().StringVar(&mode, "mode", "run", "what the configuration is for: run or sidecar")
	return c
}

// number is a count with its noun.
func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
