// Podnotify-healthcheck is "podnotify healthcheck" without the weight: an exec
// probe or a HEALTHCHECK starts it every few seconds, and pays for every package
// that is linked. It has the same command line and gives the same answers.
package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/podnotify/podnotify/internal/ask"
	_ "github.com/podnotify/podnotify/internal/lean" // one processor: no other thread is woken for the deadline
)

const usage = `Ask a running podnotify one question, by default ready, and print its answer
on one line. The exit code is 0 for yes and 1 for everything else. podnotify has
2s to answer: give the probe more than that, or it is cut short.

Usage:
  podnotify-healthcheck [flags] [bound|startup|ready|live]

Flags:
      --address string   URL or HOST:PORT of podnotify (default $PODNOTIFY_ADDRESS, else ` + ask.DefaultAddress + `)
      --fail-open        count it as yes if podnotify refuses, resets or does not answer in time
  -h, --help             help for podnotify-healthcheck
      --service string   ask about one service (default $PODNOTIFY_SERVICE, else all)
      --wait duration    ask again for so long until the answer is yes
`

func main() {
	os.Exit(run(os.Args[1:], os.Getenv("PODNOTIFY_ADDRESS"), os.Stdout, os.Stderr))
}

// run returns 0 for yes and 1 for everything else: docker keeps 2 for itself.
func run(args []string, variable string, stdout, stderr io.Writer) int {
	c, help, err := parse(args)
	var line string
	yes := false
	switch {
	case err != nil:
		err = errors.New("cannot read the command line: " + err.Error() + "; see podnotify-healthcheck --help")
	case help:
		_, _ = io.WriteString(stdout, usage)
		return 0
	default:
		if c.Service == "" && c.Question != "bound" {
			c.Service = os.Getenv("PODNOTIFY_SERVICE")
		}
		line, yes, err = c.Run(variable)
	}
	if err != nil {
		_, _ = io.WriteString(stderr, "podnotify-healthcheck: "+err.Error()+"\n")
		return 1
	}
	_, _ = io.WriteString(stdout, line+"\n")
	if !yes {
		return 1
	}
	return 0
}

// parse reads the command line as podnotify does: --flag VALUE or --flag=VALUE,
// flags and the question in any order, and no flags after --.
func parse(args []string) (c ask.Check, help bool, err error) {
	c.Question = "ready"
	var words []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			words = append(words, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, given := strings.Cut(arg, "=")
		switch name {
		case "-h", "--help", "--fail-open":
			on := true
			if given {
				if on, err = strconv.ParseBool(value); err != nil {
					return c, false, invalid(name, value, err)
				}
			}
			if name == "--fail-open" {
				c.FailOpen = on
			} else if on {
				return c, true, nil
			}
		case "--address", "--service", "--wait":
			if !given {
				if len(args) == 0 {
					return c, false, errors.New("flag needs an argument: " + name)
				}
				value, args = args[0], args[1:]
			}
			switch name {
			case "--address":
				c.Address = value
			case "--service":
				c.Service = value
			default:
				if c.Wait, err = time.ParseDuration(value); err != nil {
					return c, false, invalid(name, value, err)
				}
			}
		default:
			if arg[1] != '-' {
				return c, false, errors.New("unknown shorthand flag: " + strconv.QuoteRune(rune(arg[1])) + " in " + ask.Printable(arg))
			}
			return c, false, errors.New("unknown flag: " + ask.Printable(name))
		}
	}
	if len(words) > 1 {
		return c, false, errors.New(strconv.Quote(words[1]) + " is one argument too many")
	}
	if len(words) == 1 {
		c.Question = words[0]
	}
	return c, false, nil
}

// invalid has the words of pflag.
func invalid(name, value string, err error) error {
	return errors.New("invalid argument " + strconv.Quote(value) + " for " + strconv.Quote(name) + " flag: " + err.Error())
}
