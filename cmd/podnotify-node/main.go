// Podnotify-node listens to the daemons of a whole host, in containers that share
// nothing with it, and answers probes for them. This package wires the rooms of
// podnotify with containerd; it is the only program that links containerd's client.
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

// Exit codes beside 0, as podnotify has them.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3
	exitNoDaemon = 4
	exitConfig   = 78
)

// version is set when a release or an image is built: -ldflags "-X main.version=v1.2.3".
var version = "(devel)"

func main() {
	a := &app{os.Stdout, os.Stderr, os.Environ()}
	os.Exit(a.run(os.Args[1:]))
}

// app is what a command may touch of the process it runs in.
type app struct {
	stdout, stderr io.Writer
	environ        []string
}

// exitError ends a command with a code, and a message unless err is nil.
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

func exit(code int, err error) error { return &exitError{code, err} }

func (a *app) run(args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	code := exitUsage
	if e, ok := errors.AsType[*exitError](err); ok {
		code, err = e.code, e.err
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintln(a.stderr, "podnotify-node: "+strings.TrimSuffix(line, "\n"))
		}
	}
	return code
}

func newRoot(a *app) *cobra.Command {
	serve := newServe(a)
	tell := false
	root := &cobra.Command{
		Use:   "podnotify-node [flags]",
		Short: "podnotify-node answers probes for all daemons of a host",
		Long: `podnotify-node listens to daemons in containers of containerd that ask for it, by
pod annotation or container label, and answers their probes. Without a command it
serves.`,
		Args:              serve.Args,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(c *cobra.Command, args []string) error {
			if tell {
				_, err := fmt.Fprintln(a.stdout, "podnotify-node "+version)
				return err
			}
			return serve.RunE(c, args)
		},
	}
	root.Flags().BoolVar(&tell, "version", false, "say which podnotify-node this is")
	config.AddNodeFlags(root.Flags())
	failUsage(root, exitConfig)
	root.AddCommand(serve, newStatus(a))
	root.AddCommand(newActs(a)...)
	return root
}

// failUsage sets the exit code of a command line that c cannot read.
func failUsage(c *cobra.Command, code int) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		cure := "see " + c.CommandPath() + " --help"
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
			if near := config.NearestFlag(c.Flags(), unknown.GetSpecifiedName()); near != "" {
				cure = "did you mean --" + near + "?"
			}
		}
		return exit(code, fmt.Errorf("cannot read the command line: %w; %s", err, cure))
	})
}

// atMost admits so many arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return exit(exitUsage, fmt.Errorf("cannot run %q: it is no command of podnotify-node, or one argument too many; see %s --help", args[n], c.CommandPath()))
		}
		return nil
	}
}
