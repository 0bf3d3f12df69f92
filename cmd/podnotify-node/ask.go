package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
	"github.com/podnotify/podnotify/internal/config"
	"github.com/podnotify/podnotify/internal/control"
	"github.com/podnotify/podnotify/internal/display"
	"github.com/podnotify/podnotify/probes"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// socket is the control socket of the podnotify-node that runs with the same run-dir.
func (a *app) socket(c *cobra.Command) (string, error) {
	cfg, err := config.LoadNode(c.Flags(), a.environ)
	if err != nil {
		return "", exit(exitConfig, err)
	}
	return filepath.Join(cfg.RunDir, "control"), nil
}

func newStatus(a *app) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "status [flags] [CONTAINER]",
		Short: "Show how the daemons of this host are",
		Long: `Show how the containers that podnotify-node serves are, a line for each, or one of
them in full: by NAMESPACE/POD/CONTAINER, by its id, or by NAMESPACE/ID with the
namespace that containerd has it in. The exit code is 0 if all are ready, 3 if one is
not, 4 if one has no daemon, there is no such container, or podnotify-node does not
answer.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return exit(exitUsage, fmt.Errorf("cannot use --output %q: is not known; write text or json", format))
			}
			path, err := a.socket(c)
			if err != nil {
				return err
			}
			page := "/statusz"
			if len(args) > 0 {
				page += "/" + (&url.URL{Path: args[0]}).EscapedPath()
			}
			code, body, err := control.Get(c.Context(), path, page)
			switch {
			case err != nil:
				return exit(exitNoDaemon, err)
			case code != http.StatusOK:
				return exit(exitNoDaemon, errors.New("cannot show the status: "+ask.Line(string(body))))
			}
			return a.show(body, len(args) > 0, format)
		},
	}
	failUsage(c, exitUsage)
	config.AddNodeFlags(c.Flags(), "run-dir")
	c.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return c
}

// show prints an answer. Its code is that of the worst service.
func (a *app) show(body []byte, one bool, format string) error {
	var all probes.Statuses
	var err error
	if one {
		all.Services = make([]probes.Status, 1)
		err = json.Unmarshal(body, &all.Services[0])
	} else {
		err = json.Unmarshal(body, &all)
	}
	if err != nil {
		return exit(exitFailed, fmt.Errorf("cannot read the answer of podnotify-node: %w", err))
	}
	text := string(body)
	switch {
	case format == "json":
	case one:
		text = display.Text(all.Services, time.Now())
	default:
		text = display.Table(all.Services, time.Now())
	}
	if _, err := io.WriteString(a.stdout, text); err != nil {
		return exit(exitFailed, fmt.Errorf("cannot write the status: %w", err))
	}
	worst := 0
	for _, s := range all.Services {
		switch {
		case s.Ready:
		case s.Main == nil && (s.Phase == lifecycle.Absent.String() || s.Phase == lifecycle.Gone.String()):
			worst = max(worst, exitNoDaemon)
		default:
			worst = max(worst, exitNotReady)
		}
	}
	if worst == 0 {
		return nil
	}
	return exit(worst, nil)
}

// newActs are the commands that act on the main process of a container.
func newActs(a *app) []*cobra.Command {
	var signal string
	var noWait bool
	act := func(verb, short, long string) *cobra.Command {
		c := &cobra.Command{
			Use:   verb + " [flags] CONTAINER",
			Short: short,
			Long: strings.TrimSpace(long) + `

The container is named by NAMESPACE/POD/CONTAINER, by its id, or by NAMESPACE/ID with
the namespace that containerd has it in.`,
			Args: atMost(1),
			RunE: func(c *cobra.Command, name []string) error {
				args := url.Values{}
				if len(name) > 0 {
					args.Set("service", name[0])
				}
				if signal != "" {
					args.Set("signal", signal)
				}
				if noWait {
					args.Set("no-wait", "1")
				}
				path, err := a.socket(c)
				if err != nil {
					return err
				}
				err = control.Do(c.Context(), path, verb, args)
				if note, ok := errors.AsType[control.Note](err); ok {
					fmt.Fprintf(a.stderr, "podnotify-node: %s\n", note)
					return nil
				}
				if err != nil {
					return exit(exitFailed, err)
				}
				return nil
			},
		}
		failUsage(c, exitUsage)
		config.AddNodeFlags(c.Flags(), "run-dir")
		return c
	}
	reload := act("reload", "Have a daemon reload", `
Send signals.reload to the main process of a container, and wait until it has
reloaded, if it tells: RELOADING=1 within a second, and READY=1 after it. That it
did not tell is said, and is no failure.`)
	stop := act("stop", "End a daemon", `
Send signals.kill to the main process of a container, SIGKILL after timeouts.stop,
and wait for its end. It is not respawned by podnotify-node; kubelet may do so.`)
	respawn := act("respawn", "End a daemon and have it started again", `
Send signals.kill to the main process of a container, SIGKILL after timeouts.stop.
With respawn.mode containerd it gets a new task; else the platform starts it again.`)
	kill := act("kill", "Send a signal to a daemon", `
Send a signal to the main process of a container.`)
	kill.Flags().StringVar(&signal, "signal", "TERM", "name or number of the signal")
	for _, c := range []*cobra.Command{reload, stop} {
		c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the daemon")
	}
	return []*cobra.Command{reload, stop, respawn, kill}
}
