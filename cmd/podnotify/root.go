package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/podnotify/podnotify/internal/config"
)

// Exit codes beside 0 and a daemon's own. 75 and 78 are those of sysexits.h, 3
// and 4 those of systemctl status.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3
	exitNoDaemon = 4
	exitTimedOut = 75
	exitConfig   = 78
	// exitRestartPod is what a restartPolicyRule with RestartAllContainers is to
	// name (Kubernetes 1.36).
	exitRestartPod = 79
)

// app is what a command may touch of the process it runs in.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string
	job     func() error // what a command leaves to be done for long, or nil
}

// getenv returns the value of a variable, "" if it is not set.
func (a *app) getenv(name string) string {
	for _, e := range a.environ {
		if n, v, _ := strings.Cut(e, "="); n == name {
			return v
		}
	}
	return ""
}

// exitError ends a command with a code. A nil err says nothing: the code does,
// or the command has said it already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exit ends a command with a code and, unless err is nil, a message.
func exit(code int, err error) error { return &exitError{code, err} }

// run is main without the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	err := a.execute(args)
	if err == nil && a.job != nil {
		err = a.job()
	}
	return a.report(err)
}

// execute does what the command line says, but for what takes long: by then all commands
// and their flags are garbage, which would be held as long as podnotify lives (0.1 MB).
func (a *app) execute(args []string) error {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return root.ExecuteContext(context.Background())
}

// report prints an error, once and with our name before each of its lines, and
// returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	code := exitUsage // what cobra itself finds wrong
	if e, ok := errors.AsType[*exitError](err); ok {
		code, err = e.code, e.err
	}
	if err != nil {
		a.complain(err.Error())
	}
	return code
}

func (a *app) complain(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(a.stderr, "podnotify: "+strings.TrimSuffix(line, "\n"))
	}
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "podnotify",
		Short: "podnotify turns what a daemon tells its init system into answers for probes",
		Long: `podnotify listens to a daemon that tells its init system when it is ready, by
sd_notify (systemd) or by stopping itself (upstart), and answers the probes of
Kubernetes, docker and load balancers with it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(&cobra.Group{ID: serves, Title: "Serve a daemon:"}, &cobra.Group{ID: asks, Title: "Ask and tell:"})
	root.SetUsageFunc(usage)
	failUsage(root, exitUsage)
	group(root)
	tell, others := false, root.RunE
	root.Flags().BoolVar(&tell, "version", false, "say which podnotify this is")
	root.RunE = func(c *cobra.Command, args []string) error {
		if tell {
			_, err := fmt.Fprintln(a.stdout, currentBuild())
			return err
		}
		return others(c, args)
	}

	add := func(id string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	add(serves, newSidecarCommand(a), newRunCommand(a))
	add(asks, newStatusCommand(a), newHealthcheckCommand(a), newWaitCommand(a), newSendCommand(a), newPrestopCommand(a))
	add(asks, newActCommands(a)...)
	root.AddCommand(newConfigCommand(a), newInstallCommand(), newPauseCommand(a), newVersionCommand(a))
	root.SetHelpCommand(newHelpCommand())
	return root
}

// newHelpCommand is cobra's, but that what is not known is a failure.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(c *cobra.Command, args []string) error {
			about, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if len(rest) > 0 {
				return noSuchCommand(about, rest[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// The groups of commands in --help.
const (
	serves = "serves"
	asks   = "asks"
)

// group makes c a command that only has others below it.
func group(c *cobra.Command) {
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.Help()
		}
		return noSuchCommand(c, args[0])
	}
	c.Args = cobra.ArbitraryArgs // or cobra words the message itself
}

// noSuchCommand says that c has no command called name, and which is the nearest.
func noSuchCommand(c *cobra.Command, name string) error {
	cure := "see " + c.CommandPath() + " --help"
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		cure = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return exit(exitUsage, fmt.Errorf("cannot run %q: there is no such command; %s", name, cure))
}

// failUsage sets the exit code of a command line that c cannot read: its flags,
// and its arguments if c.Args is set already.
func failUsage(c *cobra.Command, code int) {
	wrap := func(c *cobra.Command, err error) error {
		cure := "see " + c.CommandPath() + " --help"
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
			if near := config.NearestFlag(c.Flags(), unknown.GetSpecifiedName()); near != "" {
				cure = "did you mean --" + near + "?"
			}
		}
		return exit(code, fmt.Errorf("cannot read the command line: %w; %s", err, cure))
	}
	c.SetFlagErrorFunc(wrap)
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, list []string) error {
			if err := args(c, list); err != nil {
				return wrap(c, err)
			}
			return nil
		}
	}
}

// atMost admits so many arguments and names the first that is too many.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%q is one argument too many", args[n])
		}
		return nil
	}
}

// usage prints how a command is used. Unlike cobra's own it sorts the flags by
// what they are about.
func usage(c *cobra.Command) error {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "Usage:\n  %s\n", c.UseLine())
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND\n", c.CommandPath())
	}
	for _, g := range append(c.Groups(), &cobra.Group{Title: "Commands:"}) {
		title := "\n" + g.Title + "\n"
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && (sub.IsAvailableCommand() || sub.Name() == "help") {
				fmt.Fprintf(w, "%s  %-12s %s\n", title, sub.Name(), sub.Short)
				title = ""
			}
		}
	}
	for _, g := range config.Groups(c.Flags()) {
		fmt.Fprintf(w, "\n%s:\n%s", g.Title, g.Flags.FlagUsages())
	}
	return nil
}

// load reads the configuration of a command that has config.AddFlags' flags. Its
// error ends the command. Warnings are printed.
func (a *app) load(c *cobra.Command, mode config.Mode, command []string) (config.Config, error) {
	cfg, err := config.Load(mode, c.Flags(), a.environ, os.ReadFile, command)
	if err != nil {
		return config.Config{}, exit(exitConfig, err)
	}
	for _, w := range cfg.Warnings {
		a.complain("warning: " + w)
	}
	return cfg, nil
}
