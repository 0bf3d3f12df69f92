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
	{"expect", func(m Mode, s *sidecar.Config) bool {
		return m == Run && (s.Policy.Expect == lifecycle.ExpectFork || s.Policy.Expect == lifecycle.ExpectDaemon)
	}, "this version does not follow forks", "keep the daemon in the foreground and use notify, stop or none"},
	{"expect", func(_ Mode, s *sidecar.Config) bool { return s.Policy.Expect == lifecycle.ExpectPIDFile },
		"this version does not watch PID files", "keep the daemon in the foreground and use notify, stop or none"},
	{"gate.tcp", func(_ Mode, s *sidecar.Config) bool { return s.Policy.Gate },
		"this version has no gate", "leave it out"},
	{"policy.unknown", func(_ Mode, s *sidecar.Config) bool { return s.Policy.OnUnknown != lifecycle.UnknownNotReady },
		"this version only knows not-ready", "leave it out"},
	{"respawn.mode", func(_ Mode, s *sidecar.Config) bool { return s.Respawn.Mode != "platform" },
		"this version does not respawn", "leave it out: the platform restarts the container, by its probes"},
	{"fdstore.max", func(_ Mode, s *sidecar.Config) bool { return s.FDStoreMax > 0 },
		"this version does not keep descriptors", "leave it out"},
}
