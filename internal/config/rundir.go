package config

import (
	"path/filepath"
	"strings"
)

// defaultRunDir is where uid keeps its sockets and state: "" if that is to be a
// fresh directory, which only a start makes. A relative XDG_RUNTIME_DIR counts
// as unset, as its specification has it.
func defaultRunDir(uid int, xdg string) string {
	switch {
	case uid == 0:
		return "/run/podnotify"
	case strings.HasPrefix(xdg, "/"):
		return filepath.Join(xdg, "podnotify")
	}
	return ""
}

// UseRunDir sets the run-dir where RunDir is "": to the fresh directory dir that
// the caller has made. It fills in the addresses that follow from it. The error
// is an [Errors]: a path that is too long for a socket.
func (c *Config) UseRunDir(dir string) error {
	c.RunDir = dir
	c.set("", "run-dir", dir)
	var errs Errors
	for i := range c.Services {
		errs = c.fillAddress(&c.Services[i], errs)
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// fillAddress gives a service its default address, once there is a run-dir.
func (c *Config) fillAddress(s *service, errs Errors) Errors {
	if s.Address != "" || c.RunDir == "" || s.Name == "" {
		return errs
	}
	a := filepath.Join(c.RunDir, s.Name, "notify")
	if _, bad := readAddress(a); bad != nil {
		return append(errs, Error{
			Key: "notify.address", Value: a, Reason: bad.reason,
			Cure: "choose a shorter run-dir or name, or set notify.address",
		})
	}
	s.Address = a
	c.set(s.Name, "notify.address", a)
	return errs
}
