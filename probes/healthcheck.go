package probes

import (
	"errors"
	"net/http"

	"github.com/heptiolabs/healthcheck"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// healthEndpoints is heptiolabs/healthcheck's handler with the services' checks.
// It is all of podnotify that knows of that library.
//
// The library runs each check as a function of nothing, so ?full=1 may mix two
// generations of a snapshot; /readyz and /livez do not.
type healthEndpoints struct{ handler healthcheck.Handler }

// newHealthcheck registers every check before anything is served: the library
// answers 200 where there are none, and registers under the lock that its
// checks run under. A name must not be both a liveness and a readiness check
// (the status would be right and the text wrong), hence the suffix.
func newHealthcheck(services []Source) *healthEndpoints {
	h := healthcheck.NewHandler()
	if len(services) == 0 {
		h.AddReadinessCheck("services", func() error { return errors.New(noServices) })
	}
	for _, s := range services {
		for _, name := range lifecycle.CheckNames() {
			full := valid(s.Name()) + "/" + name
			if lifecycle.Lists(lifecycle.Readyz, name) {
				h.AddReadinessCheck(full, one(s, lifecycle.Readyz, name))
			}
			if lifecycle.Lists(lifecycle.Livez, name) {
				h.AddLivenessCheck(full+"/live", one(s, lifecycle.Livez, name))
			}
		}
	}
	return &healthEndpoints{h}
}

// newDynamicHealthcheck has one check for all services that there are: the library
// cannot forget a check that was registered.
func newDynamicHealthcheck(d Directory) *healthEndpoints {
	h := healthcheck.NewHandler()
	all := func(probe lifecycle.Probe) healthcheck.Check {
		return func() error {
			if line := firstFailing(probe, d.Services(), &exclusion{}); line != "" {
				return errors.New(line)
			}
			return nil
		}
	}
	h.AddReadinessCheck("services", all(lifecycle.Readyz))
	h.AddLivenessCheck("services/live", all(lifecycle.Livez))
	return &healthEndpoints{h}
}

// one is a single check of a service, as the library wants it.
func one(s Source, probe lifecycle.Probe, name string) healthcheck.Check {
	others := func(check string) bool { return check != name }
	return func() error {
		if c, fails := s.Look().Failing(s.Policy(), probe, others); fails {
			return errors.New(valid(c.Reason))
		}
		return nil
	}
}

func (h *healthEndpoints) ready(w http.ResponseWriter, r *http.Request) {
	h.handler.ReadyEndpoint(w, asGET(r))
}

func (h *healthEndpoints) live(w http.ResponseWriter, r *http.Request) {
	h.handler.LiveEndpoint(w, asGET(r))
}

// asGET lets HEAD in, which the library refuses. net/http drops the body, as it
// goes by the request it read.
func asGET(r *http.Request) *http.Request {
	if r.Method != http.MethodHead {
		return r
	}
	get := *r
	get.Method = http.MethodGet
	return &get
}
