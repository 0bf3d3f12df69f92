package config

import (
	"slices"

	"github.com/spf13/pflag"
)

// text is the value of every flag: what was written. Its type is the word that
// stands for it in --help.
type text struct{ value, word string }

func (t *text) String() string     { return t.value }
func (t *text) Set(s string) error { t.value = s; return nil }
func (t *text) Type() string       { return t.word }

// AddFlags defines a flag for every key: first those of podnotify itself, then
// those of a service.
func AddFlags(flags *pflag.FlagSet) {
	AddProcessFlags(flags)
	addFlags(flags, serviceKeys)
}

// AddProcessFlags defines the flags of podnotify's own keys that are named, or
// of all of them.
func AddProcessFlags(flags *pflag.FlagSet, only ...string) {
	for _, k := range processKeys {
		if len(only) == 0 || slices.Contains(only, k.name) {
			addFlags(flags, []key[Config]{k})
		}
	}
}

func addFlags[T any](flags *pflag.FlagSet, keys []key[T]) {
	for i := range keys {
		k := &keys[i]
		flags.Var(&text{k.def, k.word}, k.flag(), k.help)
	}
}

// NearestFlag returns the flag, without its dashes, that is a slip of the pen away
// from name, or "".
func NearestFlag(flags *pflag.FlagSet, name string) string {
	var known []string
	flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	return nearest(name, known)
}

// Group is some flags under a title of --help.
type Group struct {
	Title string
	Flags *pflag.FlagSet
}

// Groups sorts the flags of a command: its own, podnotify's and the service's,
// in the order of the tables. Empty groups are left out.
func Groups(flags *pflag.FlagSet) []Group {
	all := []Group{{Title: "Flags"}, {Title: "Flags of podnotify"}, {Title: "Flags of the service"}}
	for i := range all {
		all[i].Flags = pflag.NewFlagSet("", pflag.ContinueOnError)
		all[i].Flags.SortFlags = false
	}
	flags.VisitAll(func(f *pflag.Flag) {
		_, ours := f.Value.(*text)
		switch {
		case !ours:
			all[0].Flags.AddFlag(f)
		case slices.ContainsFunc(processKeys, func(k key[Config]) bool { return k.flag() == f.Name }):
			all[1].Flags.AddFlag(f)
		default:
			all[2].Flags.AddFlag(f)
		}
	})
	return slices.DeleteFunc(all, func(g Group) bool { return !g.Flags.HasFlags() })
}
