package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/rundir"
)

func newInstallCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install DIR",
		Short: "Copy podnotify into a directory, for a daemon's container",
		Long: `Copy podnotify and podnotify-healthcheck into DIR, which is made if it is
missing: a volume that the daemon's container mounts, so that its image needs
no change. What is there already is replaced, each file at once, so that one who
starts it meanwhile has the old or the new one.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("DIR is missing")
			}
			return atMost(1)(nil, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := install(args[0]); err != nil {
				return exit(exitFailed, err)
			}
			return nil
		},
	}
	failUsage(c, exitFailed)
	return c
}

// install copies this program and its neighbour into dir.
func install(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find podnotify itself: %w", err)
	}
	var programs [2]*os.File
	for i, path := range []string{
		"/proc/self/exe", // also if it was replaced or renamed since its start
		filepath.Join(filepath.Dir(self), "podnotify-healthcheck"),
	} {
		if programs[i], err = os.Open(path); err != nil {
			return fmt.Errorf("cannot read %s: %w", path, rundir.Bare(err))
		}
		defer programs[i].Close()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", dir, rundir.Bare(err))
	}
	for i, name := range []string{"podnotify", "podnotify-healthcheck"} {
		if err := replace(filepath.Join(dir, name), programs[i]); err != nil {
			return fmt.Errorf("cannot write %s into %s: %w", name, dir, err)
		}
	}
	return nil
}

// replace makes a file for everyone to execute, under another name first: what is
// called path is never half a program.
func replace(path string, program io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return rundir.Bare(err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, program)
	if err == nil {
		err = f.Chmod(0o755) // whatever the umask
	}
	if err == nil {
		err = f.Sync() // a volume may outlive a crash of the machine
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return rundir.Bare(err)
	}
	err = os.Rename(f.Name(), path)
	if e := (*os.LinkError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}
