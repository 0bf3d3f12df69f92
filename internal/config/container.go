package config

import (
	"maps"
	"slices"

	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// Container makes a service of what a container says about itself in its labels or
// its pod's annotations: the keys of a service with their values. name is what the
// service is called; origin says where a key was written. owned says that somebody
// else starts the container again, as kubelet does: then podnotify must not.
//
// The error is an [Errors] with everything that is wrong. The Config is then of no use
// but for its name.
func Container(name string, options map[string]string, origin func(key string) string, owned bool) (sidecar.Config, []string, error) {
	l := newLoader(Node, nil, nil)
	l.place = origin
	items := map[string]item{}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		switch {
		case key == "name", key == "notify.address", key == "select.container":
			l.fail(Error{key, options[key], l.at(key), "the container tells it, by what it is called and by its cgroup", "leave it out"})
		case isServiceKey(key):
			items[key] = item{options[key], 0}
		default:
			e := Error{Key: key, Origin: l.at(key), Reason: "there is no such key"}
			if near := nearest(key, serviceFileKeys()); near != "" {
				e.Cure = "did you mean " + near + "?"
			}
			l.fail(e)
		}
	}
	values := layer(l, serviceKeys, items, false)
	for key := range items {
		values.origin[key] = l.at(key)
	}
	values.viper.Set("name", "container") // stands for a name that a file would not take
	s := service{}
	parse(l, serviceKeys, values, &s)
	l.check(&s, values)
	if owned && s.Policy.Respawn.Mode == lifecycle.RespawnContainerd {
		l.fail(Error{"respawn.mode", "containerd", values.origin["respawn.mode"], "the container is kubelet's, which starts it again",
			"use signal, or leave it out"})
	}
	s.Name = name
	if len(l.errs) > 0 {
		return s, nil, l.errs
	}
	return s, l.config.Warnings, nil
}

// at is the origin of a container's option.
func (l *loader) at(key string) Origin { return Origin{kind: byLabel, name: l.place(key)} }
