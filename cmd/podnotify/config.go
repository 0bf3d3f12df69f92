package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
	"github.com/podnotify/podnotify/internal/config"
)

func newConfigCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check, show and import the configuration"}
	failUsage(c, exitUsage)
	group(c)
	c.AddCommand(
		newConfigSubcommand(a, "check", "Say what is wrong with the configuration", func(cfg *config.Config) error {
			_, err := fmt.Fprintln(a.stdout, "ok: "+strings.Join(serviceNames(cfg), ", "))
			return err
		}),
		newConfigSubcommand(a, "show", "Show every value and where it comes from", func(cfg *config.Config) error {
			return showConfig(a, cfg)
		}),
		newConfigImportCommand(a),
	)
	return c
}

func newConfigSubcommand(a *app, name, short string, then func(*config.Config) error) *cobra.Command {
	var mode string
	c := &cobra.Command{
		Use:   name + " [flags] [FILE] [-- CMD [ARG...]]",
		Short: short,
		Long:  short + ".\nFILE is the same as --config FILE. With --mode run, CMD gives the service its name.",
		Args: func(c *cobra.Command, args []string) error {
			if files, _ := splitAtDash(c, args); len(files) > 1 {
				return fmt.Errorf("%d files, one is the most", len(files))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			files, command := splitAtDash(c, args)
			if len(files) == 1 {
				if c.Flags().Changed("config") {
					return exit(exitConfig, errors.New("cannot read the command line: FILE and --config are given; leave one out"))
				}
				if err := c.Flags().Set("config", files[0]); err != nil {
					return err
				}
			}
			way, err := modeOf(mode)
			if err != nil {
				return err
			}
			cfg, err := a.load(c, way, command)
			if err != nil {
				return err
			}
			return then(&cfg)
		},
	}
	failUsage(c, exitConfig)
	c.Flags().StringVar(&mode, "mode", "sidecar", "what the configuration is for: sidecar or run")
	config.AddFlags(c.Flags())
	return c
}

// modeOf reads the value of --mode.
func modeOf(mode string) (config.Mode, error) {
	switch mode {
	case "sidecar":
		return config.Sidecar, nil
	case "run":
		return config.Run, nil
	}
	return 0, exit(exitConfig, fmt.Errorf("cannot use --mode %q: is not known; write sidecar or run", mode))
}

// splitAtDash parts the arguments before -- from those behind it.
func splitAtDash(c *cobra.Command, args []string) (before, behind []string) {
	if n := c.ArgsLenAtDash(); n >= 0 {
		return args[:n], args[n:]
	}
	return args, nil
}

func serviceNames(cfg *config.Config) []string {
	names := make([]string, len(cfg.Services))
	for i := range cfg.Services {
		names[i] = cfg.Services[i].Name
	}
	return names
}

// showConfig prints KEY, VALUE and ORIGIN in columns, one key a line, so that
// grep finds what it is asked for.
func showConfig(a *app, cfg *config.Config) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, s := range cfg.Settings {
		key, value := s.Key, s.Value
		if s.Service != "" {
			key = "services[" + s.Service + "]." + key
		}
		switch {
		case s.Key == "run-dir" && value == "":
			value = "(a fresh directory, made at start)"
		case s.Key == "notify.address" && value == "":
			value = "(below run-dir)"
		case value == "" || strings.ContainsAny(value, " \"\\") || ask.Printable(value) != value:
			value = strconv.Quote(value)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", key, value, ask.Printable(s.Origin.String()))
	}
	return w.Flush()
}
