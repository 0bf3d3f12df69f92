package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Variables that are no keys: the address is for who asks a running podnotify.
const addressVariable = envPrefix + "ADDRESS"

// serviceLink matches the variables that Kubernetes and docker put into a
// container for a Service or a link that is called podnotify or podnotify-x.
//
// Hardly any environment has what it is asked about: it is compiled when it is.
var serviceLink = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_\d+_(TCP|UDP|SCTP)|_ENV_|_NAME$`)
})

// strays warns of variables that look like keys and are none. They are no
// error, because others may put variables into our environment.
func (l *loader) strays() {
	var known []string
	for i := range processKeys {
		known = append(known, strings.TrimPrefix(processKeys[i].env(), envPrefix))
	}
	for i := range serviceKeys {
		known = append(known, strings.TrimPrefix(serviceKeys[i].env(), envPrefix))
	}
	for _, name := range slices.Sorted(maps.Keys(l.env)) {
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || name == addressVariable || slices.Contains(known, rest) || serviceLink().MatchString(name) {
			continue
		}
		w := "the variable " + printable(name) + " means nothing to podnotify"
		if n := nearest(rest, known); n != "" {
			w += "; did you mean " + envPrefix + n + "?"
		}
		l.config.Warnings = append(l.config.Warnings, w)
	}
}
