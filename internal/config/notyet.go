package config

import (
	"github.com/podnotify/podnotify/sidecar"
	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// notYet is what the configuration knows and this version cannot do. It is
// refused, never silently accepted. A version that can do more removes lines.
var notYet = []struct {
	key    string
	asked  func(Mode, *sidecar.Config) bool
	reason string
	cure   string
}{
	{"policy.unknown", func(_ Mode, s *sidecar.Config) bool { return s.Policy.OnUnknown != lifecycle.UnknownNotReady },
		"this version only knows not-ready", "leave it out"},
}
