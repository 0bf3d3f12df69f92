// Package metrics shows the services' snapshots to Prometheus. It keeps no
// number of its own: every scrape reads what is known at that moment, and
// nothing but a scrape does any work.
package metrics

import (
	"bytes"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Source is one service. All methods may be called at the same time, and none
// of them blocks.
type Source interface {
	Name() string
	Policy() *lifecycle.Policy
	Look() *lifecycle.Snapshot // the newest, never nil
}

// Labelled is a Source with more labels than its name.
type Labelled interface {
	Labels() []string // the values of Config.Labels
}

// Config is what there is to show.
type Config struct {
	Services func() []Source        // names are unique
	Labels   []string               // names of labels that services have beside their own; each is then Labelled
	Degraded func() map[string]bool // podnotify's own troubles by name, true while one lasts; nil: none are known
	Version  string
}

// New returns a registry of its own (never the default one, and without
// client_golang's figures of process and runtime) that reads from c.
func New(c Config) *prometheus.Registry {
	r := prometheus.NewRegistry()
	k := &collector{Config: c, revision: revision(), descs: map[*series]*prometheus.Desc{}}
	for _, s := range all {
		labels := s.labels
		if labels[0] == "service" {
			labels = append(labels[:len(labels):len(labels)], c.Labels...)
		}
		k.descs[s] = prometheus.NewDesc("podnotify_"+s.name, s.help, labels, nil)
	}
	r.MustRegister(k)
	return r
}

// Handler serves a registry in Prometheus' text format, which every scraper reads.
// What can be shown is shown, even if one series cannot. promhttp is left out: it
// knows more formats and compresses, which is a third of a megabyte in every pod, and a gzip
// writer would hold more memory than all else of podnotify.
func Handler(r *prometheus.Registry) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		families, err := r.Gather()
		if err != nil && len(families) == 0 {
			http.Error(w, "cannot gather: "+err.Error(), http.StatusInternalServerError)
			return
		}
		var b bytes.Buffer
		for _, f := range families {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				http.Error(w, "cannot write "+f.GetName()+": "+err.Error(), http.StatusInternalServerError)
				return
			}
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		_, _ = w.Write(b.Bytes()) // a scraper that went away has nobody to be told about it
	})
}

// series is a metric. What is about a service has its name for the first label.
type series struct {
	name, help string
	labels     []string
}

func desc(name, help string, labels ...string) *series { return &series{name, help, labels} }

var (
	started     = desc("started", "Whether the startup probe says yes.", "service")
	ready       = desc("ready", "Whether the readiness probe says yes.", "service")
	live        = desc("live", "Whether the liveness probe says yes.", "service")
	phase       = desc("phase", "1 for the phase the service is in, 0 for the others.", "service", "phase")
	transitions = desc("transitions_total", "Changes from one phase to another.", "service", "from", "to")
	timeToReady = desc("time_to_ready_seconds", "Time from the start of this instance until it was ready first; absent before.", "service")
	datagrams   = desc("datagrams_total", "Datagrams received on the notify socket.", "service")
	dropped     = desc("dropped_total", "Datagrams dropped whole.", "service", "reason")
	unknownKeys = desc("unknown_keys_total", "Keys received that mean nothing to podnotify; /statusz names them.", "service")
	pings       = desc("watchdog_pings_total", "WATCHDOG=1 received.", "service")
	respawns    = desc("respawns_total", "New instances after one that ended, by what they are owed to.", "service", "reason")
	errno       = desc("errno", "Last ERRNO= of the daemon; 0 is none.", "service")
	permitted   = desc("signal_permitted", "Whether the kernel lets podnotify signal the main process; absent until tried.", "service")
	degraded    = desc("degraded", "1 while this part of podnotify itself is in trouble, which fails no probe.", "what")
	buildInfo   = desc("build_info", "Always 1; the labels tell what runs.", "version", "goversion", "revision")

	all = []*series{started, ready, live, phase, transitions, timeToReady, datagrams, dropped,
		unknownKeys, pings, respawns, errno, permitted, degraded, buildInfo}
)

type collector struct {
	Config
	revision string
	descs    map[*series]*prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	o := output{out, c.descs, nil}
	o.gauge(buildInfo, 1, c.Version, runtime.Version(), c.revision)
	if c.Degraded != nil {
		for what, now := range c.Degraded() {
			o.gauge(degraded, one(now), what)
		}
	}
	for _, s := range c.Services() {
		if l, ok := s.(Labelled); ok && len(c.Labels) > 0 {
			o.extra = l.Labels()
		}
		o.service(s)
	}
}

type output struct {
	to    chan<- prometheus.Metric
	descs map[*series]*prometheus.Desc
	extra []string // labels of the service
}

func (o output) service(src Source) {
	look, policy, name := src.Look(), src.Policy(), src.Name()
	yes := func(p lifecycle.Probe) float64 {
		_, fails := look.Failing(policy, p, nil)
		return one(!fails)
	}
	o.gauge(started, yes(lifecycle.Startup), name)
	o.gauge(ready, yes(lifecycle.Readyz), name)
	o.gauge(live, yes(lifecycle.Livez), name)
	for _, p := range lifecycle.Phases() {
		o.gauge(phase, one(p == look.Phase), name, p.String())
	}
	if !look.ReadyAt.IsZero() {
		o.gauge(timeToReady, look.ReadyAt.Sub(look.StartedAt).Seconds(), name)
	}
	o.gauge(errno, float64(look.Errno), name)
	if look.Deniable {
		o.gauge(permitted, one(!look.Forbidden), name)
	}

	facts := &look.Facts
	for t, n := range facts.Transitions {
		o.counter(transitions, n, name, t[0].String(), t[1].String())
	}
	o.counter(datagrams, facts.Datagrams, name)
	for reason, n := range facts.Dropped {
		o.counter(dropped, n, name, reason)
	}
	// One sum: a daemon must not be able to make labels.
	var unknown uint64
	for _, n := range facts.UnknownKeys {
		unknown += n
	}
	o.counter(unknownKeys, unknown, name)
	o.counter(pings, facts.Pings, name)
	for _, why := range lifecycle.Whys() {
		o.counter(respawns, uint64(look.Respawned[why]), name, why.String())
	}
}

func (o output) gauge(d *series, v float64, labels ...string) {
	o.send(d, prometheus.GaugeValue, v, labels)
}

func (o output) counter(d *series, n uint64, labels ...string) {
	o.send(d, prometheus.CounterValue, float64(n), labels)
}

// send makes labels valid UTF-8 first: one bad byte would fail the exposition.
func (o output) send(d *series, t prometheus.ValueType, v float64, labels []string) {
	if d.labels[0] == "service" {
		labels = append(labels[:len(labels):len(labels)], o.extra...)
	}
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	m, err := prometheus.NewConstMetric(o.descs[d], t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(o.descs[d], err)
	}
	o.to <- m
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// revision is the commit the binary was built from, with a + if its tree had
// changes; empty where the build did not record it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var rev, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	return rev + dirty
}
