package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and revision are set when a release or an image is built: -ldflags
// "-X main.version=v1.2.3". An image has no revision of its own: its bytes must
// not depend on where it was built.
var version, revision string

// build is what the version command tells.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Revision string `json:"revision"` // of the source; "" if it was built without, "-dirty" behind it if changed
}

func currentBuild() build {
	b := build{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, Revision: revision}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = "(devel)" // as Go calls it
	}
	if b.Revision != "" {
		return b
	}
	changed := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = "-dirty"
		}
	}
	if b.Revision != "" {
		b.Revision += changed
	}
	return b
}

func (b build) String() string {
	line := fmt.Sprintf("podnotify %s %s %s/%s", b.Version, b.Go, b.OS, b.Arch)
	if b.Revision != "" {
		line += " " + b.Revision
	}
	return line
}

func newVersionCommand(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "version",
		Short: "Say which podnotify this is",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			b := currentBuild()
			switch format {
			case "text":
				_, err := fmt.Fprintln(a.stdout, b)
				return err
			case "json":
				return json.NewEncoder(a.stdout).Encode(b)
			}
			return unknownFormat(format)
		},
	}
	failUsage(c, exitUsage)
	addOutputFlag(c, &format)
	return c
}

// addOutputFlag defines -o, which all commands with more than a line to say have.
func addOutputFlag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", "text", "text or json")
}

func unknownFormat(format string) error {
	return exit(exitUsage, fmt.Errorf("cannot use --output %q: is not known; write text or json", format))
}
