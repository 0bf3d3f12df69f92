package control

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Service is a service that can be acted on.
type Service interface {
	Name() string
	Policy() *lifecycle.Policy
	Look() *lifecycle.Snapshot
	Prestop()
	Reload() error
	Stop() error
	Respawn() error
	Kill(unix.Signal) error
}

// Actor is whom verbs act on.
type Actor struct {
	All    func() []Service
	Named  func(name string) Service // nil: there is none
	Signal func(name string) (unix.Signal, error)
}

// Verbs are prestop, which is for all services, and reload, stop, respawn and kill,
// which are for the one named by the argument service, or the only one there is.
func (a Actor) Verbs() Verbs {
	one := func(act func(context.Context, Service, url.Values) error) Verb {
		return func(ctx context.Context, args url.Values) error {
			s, err := a.pick(args.Get("service"))
			if err != nil {
				return err
			}
			return act(ctx, s, args)
		}
	}
	return Verbs{
		"prestop": func(context.Context, url.Values) error {
			for _, s := range a.All() {
				s.Prestop()
			}
			return nil
		},
		"reload":  one(reload),
		"stop":    one(stop),
		"respawn": one(func(_ context.Context, s Service, _ url.Values) error { return s.Respawn() }),
		"kill": one(func(_ context.Context, s Service, args url.Values) error {
			sig, err := a.Signal(args.Get("signal"))
			if err != nil {
				return err
			}
			return s.Kill(sig)
		}),
	}
}

// namesShown bounds how many services a message names.
const namesShown = 20

// pick finds the service that a verb is about.
func (a Actor) pick(name string) (Service, error) {
	if name != "" {
		if s := a.Named(name); s != nil {
			return s, nil
		}
	}
	all := a.All()
	if name == "" && len(all) == 1 {
		return all[0], nil
	}
	var names []string
	for _, s := range all[:min(len(all), namesShown)] {
		names = append(names, s.Name())
	}
	there := "there are " + strings.Join(names, ", ")
	switch {
	case len(all) == 0:
		there = "there are none"
	case len(all) > namesShown:
		there += fmt.Sprintf(" and %d more", len(all)-namesShown)
	}
	if name == "" {
		return nil, fmt.Errorf("cannot choose a service: %s; name one", there)
	}
	return nil, fmt.Errorf("cannot find service %q: %s", name, there)
}

// settled waits until the service is as done says, looking often: this is for
// people and scripts that wait anyway.
func settled(ctx context.Context, s Service, done func(*lifecycle.Snapshot) bool) error {
	for !done(s.Look()) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// moment is how long a daemon that is to reload may take to say that it does. Many
// never tell: then it is not known whether it has reloaded, and that is said.
const moment = time.Second

func reload(ctx context.Context, s Service, args url.Values) error {
	before := s.Look()
	if err := s.Reload(); err != nil || args.Get("no-wait") != "" {
		return err
	}
	begin, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	over := func(n *lifecycle.Snapshot) bool { return n.Main != before.Main || n.Phase == lifecycle.Stopping }
	if settled(begin, s, func(n *lifecycle.Snapshot) bool { return n.Reload.Began || over(n) }) != nil {
		return Note(fmt.Sprintf("signals.reload was sent to service %s; it did not say RELOADING=1 within %v, so it is not known whether it has reloaded", s.Name(), moment))
	}
	if err := settled(ctx, s, func(n *lifecycle.Snapshot) bool { return n.Reload.Done || n.ReloadLate || over(n) }); err != nil {
		return err
	}
	switch n := s.Look(); {
	case n.ReloadLate && !n.Reload.Done:
		return fmt.Errorf("cannot see service %s reloaded: no READY=1 within %v", s.Name(), s.Policy().ReloadTimeout)
	case over(n) && n.Phase != lifecycle.Ready:
		return fmt.Errorf("cannot see service %s reloaded: it is %v", s.Name(), n.Phase)
	}
	return nil
}

func stop(ctx context.Context, s Service, args url.Values) error {
	main := s.Look().Main
	if err := s.Stop(); err != nil || args.Get("no-wait") != "" {
		return err
	}
	if main == (lifecycle.ProcID{}) { // it had ended already, or was started this moment
		main = s.Look().Main
	}
	return settled(ctx, s, func(n *lifecycle.Snapshot) bool { return n.Main != main || main == lifecycle.ProcID{} })
}
