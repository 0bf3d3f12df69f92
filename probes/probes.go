// Package probes turns one snapshot into one answer over HTTP. It owns the
// paths, the status codes and the words of the bodies. It never changes
// anything and never waits: an answer is a few loads and one write, whatever
// the daemon, a disk or another client does.
package probes

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Source is one service as the probes see it. All methods may be called at the
// same time, and none of them blocks.
type Source interface {
	Name() string
	Policy() *lifecycle.Policy
	// Look returns the newest snapshot, never nil. In a sidecar it reads the main
	// process's state letter first, so that a stop is seen when someone asks.
	Look() *lifecycle.Snapshot
	// Command returns the command line of the main process that Look told of, as it is
	// now; empty if that cannot be had in a moment.
	Command(main lifecycle.ProcID) string
}

// Directory is services that come and go.
type Directory interface {
	// Services lists those that there are now. A service may have several names and
	// is listed once.
	Services() []Source
	// Service is the one of that name, nil if there is none.
	Service(name string) Source
}

// Config is what there is to answer about.
type Config struct {
	Services  []Source     // names are unique; a name may contain slashes
	Directory Directory    // instead of Services, if not nil
	Healthy   func() error // podnotify itself: nil once every socket is bound and every loop runs; nil func: always
	Metrics   http.Handler // /metrics; nil: there is none
}

// Handler answers all of podnotify's paths, for GET and HEAD only:
//
//	/healthz                    podnotify itself
//	/startupz /readyz /livez    all services; 200 only if every one says yes
//	/startupz/NAME ...          one service
//	/statusz /statusz/NAME      JSON: [Statuses] and [Status]
//	/ready /live                heptiolabs/healthcheck's endpoints (?full=1)
//	/metrics                    Prometheus
//
// A yes is 200 with the body "ok". A no is 503 with one line: the first failing
// check, its reason and the daemon's STATUS text; where several services are
// asked at once, the line starts with the name of the first that says no.
// ?verbose and ?exclude=check work as in kube-apiserver. With no services at
// all, startup and ready say no, live says yes.
func Handler(c Config) http.Handler {
	h := &handler{Config: c, byName: make(map[string][]Source, len(c.Services)), health: newHealthcheck(c.Services)}
	if c.Directory != nil {
		h.health = newDynamicHealthcheck(c.Directory)
	}
	for i, s := range c.Services {
		h.byName[s.Name()] = c.Services[i : i+1 : i+1]
	}
	return h
}

type handler struct {
	Config
	byName map[string][]Source // each of one service: no slice to make at probe time
	health *healthEndpoints
}

const paths = "/healthz /startupz /readyz /livez /startupz/NAME /readyz/NAME /livez/NAME /ready /live /statusz /statusz/NAME /metrics"

// Header values are shared by all answers: net/http only reads them.
var (
	noStore   = []string{"no-store"}
	noSniff   = []string{"nosniff"}
	plainText = []string{"text/plain; charset=utf-8"}
	jsonText  = []string{"application/json"}
	getHead   = []string{"GET, HEAD"}
	lenOK     = []string{"2"}
)

// ServeHTTP routes by hand: a handful of fixed words, no allocation, and names
// may contain slashes.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header["Cache-Control"], header["X-Content-Type-Options"] = noStore, noSniff

	path, _ := strings.CutPrefix(r.URL.Path, "/")
	page, name, named := strings.Cut(path, "/")
	known := false
	switch page {
	case "startupz", "readyz", "livez", "statusz":
		known = !named || name != ""
	case "healthz", "ready", "live":
		known = !named
	case "metrics":
		known = !named && h.Metrics != nil
	}
	if !known {
		write(w, http.StatusNotFound, "no such page; there are "+paths+"\n")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header["Allow"] = getHead
		write(w, http.StatusMethodNotAllowed, "only GET and HEAD are answered here\n")
		return
	}
	services := h.about(name, named)
	if named && services == nil {
		write(w, http.StatusNotFound, h.noService(name))
		return
	}

	switch page {
	case "startupz":
		answer(w, r, page, lifecycle.Startup, services)
	case "readyz":
		answer(w, r, page, lifecycle.Readyz, services)
	case "livez":
		answer(w, r, page, lifecycle.Livez, services)
	case "statusz":
		writeStatus(w, services, named)
	case "healthz":
		h.answerHealthz(w)
	case "ready":
		h.health.ready(w, r)
	case "live":
		h.health.live(w, r)
	case "metrics":
		h.Metrics.ServeHTTP(w, r)
	}
}

// about is the services that a path is about.
func (h *handler) about(name string, named bool) []Source {
	switch {
	case h.Directory == nil && named:
		return h.byName[name]
	case h.Directory == nil:
		return h.Services
	case !named:
		return h.Directory.Services()
	}
	if s := h.Directory.Service(name); s != nil {
		return []Source{s}
	}
	return nil
}

func (h *handler) answerHealthz(w http.ResponseWriter) {
	if h.Healthy != nil {
		if err := h.Healthy(); err != nil {
			write(w, http.StatusServiceUnavailable, Escape(err.Error())+"\n")
			return
		}
	}
	writeOK(w)
}

func (h *handler) noService(name string) string {
	var b strings.Builder
	b.WriteString("no service " + strconv.Quote(Escape(name)) + "; there ")
	services := h.about("", false)
	switch len(services) {
	case 0:
		b.WriteString("are none")
	case 1:
		b.WriteString("is ")
	default:
		b.WriteString("are ")
	}
	for i, s := range services {
		if i == namesShown {
			b.WriteString(" and " + strconv.Itoa(len(services)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Escape(s.Name()))
	}
	b.WriteByte('\n')
	return b.String()
}

// namesShown bounds how many services a 404 names.
const namesShown = 20

// writeOK writes the bare word, without a newline, as kube-apiserver does.
func writeOK(w http.ResponseWriter) {
	header := w.Header()
	header["Content-Type"], header["Content-Length"] = plainText, lenOK
	_, _ = w.Write(okBody) // a client that went away has nobody to be told about it
}

var okBody = []byte("ok")

func write(w http.ResponseWriter, code int, body string) {
	writeAs(w, code, plainText, []byte(body))
}

// writeAs sets the length, so that HEAD tells what GET would have sent.
func writeAs(w http.ResponseWriter, code int, contentType []string, body []byte) {
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
