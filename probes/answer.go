package probes

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// answer asks one probe of some services. Each service's snapshot is loaded
// once, so what is said of a service is never torn.
func answer(w http.ResponseWriter, r *http.Request, page string, probe lifecycle.Probe, services []Source) {
	var skip exclusion
	if r.URL.RawQuery != "" { // seldom: a query is the only thing that allocates
		query := r.URL.Query()
		skip.names = query["exclude"]
		skip.names = skip.names[:min(len(skip.names), excludedMost)]
		skip.used = make([]bool, len(skip.names))
		if query.Has("verbose") {
			answerVerbose(w, page, probe, services, &skip)
			return
		}
	}
	if line := firstFailing(probe, services, &skip); line != "" {
		if unknown := skip.unknown(services); unknown != "" {
			line += "; " + cannotExclude + unknown
		}
		write(w, http.StatusServiceUnavailable, line+"\n")
		return
	}
	writeOK(w)
}

// excludedMost bounds how many checks a request can exclude; the rest is judged.
const excludedMost = 64

// noServices fails closed: of nothing, only live may be said.
const noServices = "no service is configured"

// firstFailing is the one line that says no, empty for yes.
func firstFailing(probe lifecycle.Probe, services []Source, skip *exclusion) string {
	if len(services) == 0 && probe != lifecycle.Livez {
		return noServices
	}
	for _, s := range services {
		look := s.Look()
		check, fails := look.Failing(s.Policy(), probe, skip.of(s))
		if !fails {
			continue
		}
		line := check.Name + ": " + Escape(check.Reason)
		if len(services) > 1 {
			line = Escape(s.Name()) + ": " + line
		}
		if look.Status != "" {
			line += "; STATUS=" + Escape(look.Status)
		}
		return line
	}
	return ""
}

// answerVerbose lists every check of the probe in kube-apiserver's words, and
// at the end whether all passed. Where several services are asked at once, a
// check is called NAME/check.
func answerVerbose(w http.ResponseWriter, page string, probe lifecycle.Probe, services []Source, skip *exclusion) {
	var b strings.Builder
	passed := true
	if len(services) == 0 && probe != lifecycle.Livez {
		passed = false
		b.WriteString("[-]" + noServices + "\n")
	}
	for _, s := range services {
		name := ""
		if len(services) > 1 {
			name = Escape(s.Name()) + "/"
		}
		for _, c := range s.Look().Checks(s.Policy()) {
			switch {
			case !lifecycle.Lists(probe, c.Name):
			case skip.matches(s, c.Name):
				b.WriteString("[+]" + name + c.Name + " excluded: ok\n")
			case !c.OK() && c.Probes&probe != 0:
				passed = false
				b.WriteString("[-]" + name + c.Name + " failed: " + Escape(c.Reason) + "\n")
			default:
				b.WriteString("[+]" + name + c.Name + " ok\n")
			}
		}
	}
	if unused := skip.unused(); unused != "" {
		b.WriteString(cannotExclude + unused + "\n")
	}
	if !passed {
		b.WriteString(page + " check failed\n")
		write(w, http.StatusServiceUnavailable, b.String())
		return
	}
	b.WriteString(page + " check passed\n")
	write(w, http.StatusOK, b.String())
}

// exclusion is the checks a request does not want to be judged, each by its own
// name or by that of one service's: NAME/check.
type exclusion struct {
	names []string
	used  []bool
}

func (e *exclusion) matches(s Source, check string) bool {
	matched := false
	for i, n := range e.names {
		service, rest, found := cutLast(n)
		if n == check || found && service == s.Name() && rest == check {
			e.used[i], matched = true, true
		}
	}
	return matched
}

// cutLast cuts at the last slash: the name of a service may contain slashes,
// that of a check does not.
func cutLast(s string) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// of is what Failing wants; nil where nothing is excluded.
func (e *exclusion) of(s Source) func(check string) bool {
	if len(e.names) == 0 {
		return nil
	}
	return func(check string) bool { return e.matches(s, check) }
}

// cannotExclude is what kube-apiserver says.
const cannotExclude = "warn: some health checks cannot be excluded: no matches for "

// unknown lists the names of no check at all, quoted: of those that were not asked
// because another failed before, used tells nothing.
func (e *exclusion) unknown(services []Source) string {
	for _, s := range services {
		for _, name := range lifecycle.CheckNames() {
			e.matches(s, name)
		}
	}
	return e.unused()
}

// unused lists the names that matched nothing, quoted.
func (e *exclusion) unused() string {
	var out []string
	for i, n := range e.names {
		if !e.used[i] {
			out = append(out, strconv.Quote(Escape(n)))
		}
	}
	return strings.Join(out, ",")
}
