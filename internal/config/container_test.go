package config

import (
	"strings"
	"testing"
	"time"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

func label(key string) string { return "label podnotify.io/" + key }

func TestContainer(t *testing.T) {
	c, warnings, err := Container("default/web-0/redis", map[string]string{
		"expect": "notify", "timeouts.start": "5m", "signals.reload": "HUP", "respawn.mode": "containerd", "respawn.limit": "3",
	}, label, false)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.Name != "default/web-0/redis" || c.Policy.Expect != lifecycle.ExpectNotify || c.Policy.StartTimeout != 5*time.Minute ||
		c.Policy.Respawn.Mode != lifecycle.RespawnContainerd || c.Policy.Respawn.Limit != 3 || c.Address != "" {
		t.Errorf("%+v", c)
	}
}

func TestContainerRefuses(t *testing.T) {
	for want, c := range map[string]struct {
		options map[string]string
		owned   bool
	}{
		`cannot use expct (from label podnotify.io/expct): there is no such key; did you mean expect?`:      {map[string]string{"expct": "stop"}, false},
		`cannot use expect "fork" (from label podnotify.io/expect): a container ends with its first`:        {map[string]string{"expect": "fork"}, false},
		`cannot use expect "pidfile" (from label podnotify.io/expect): podnotify-node reads no file`:        {map[string]string{"expect": "pidfile", "select.pidfile": "/etc/shadow"}, false},
		`cannot use timeouts.start "soon" (from label podnotify.io/timeouts.start)`:                         {map[string]string{"timeouts.start": "soon"}, false},
		`cannot use respawn.mode "containerd" (from label podnotify.io/respawn.mode): the container is kub`: {map[string]string{"respawn.mode": "containerd"}, true},
		`cannot use respawn.mode "exec" (from label podnotify.io/respawn.mode): only who has started`:       {map[string]string{"respawn.mode": "exec"}, false},
		`cannot use respawn.mode "pod" (from label podnotify.io/respawn.mode)`:                              {map[string]string{"respawn.mode": "pod"}, true},
		`cannot use notify.address "/x" (from label podnotify.io/notify.address): the container tells it`:   {map[string]string{"notify.address": "/x"}, false},
		`cannot use gate.tcp "127.0.0.1:80" (from label podnotify.io/gate.tcp): podnotify-node is not in`:   {map[string]string{"gate.tcp": "127.0.0.1:80"}, false},
		`cannot use notify.access "any" (from label podnotify.io/notify.access): any would let a contain`:   {map[string]string{"notify.access": "any"}, false},
	} {
		s, _, err := Container("n", c.options, label, c.owned)
		if err == nil || !strings.HasPrefix(err.Error(), want) || s.Name != "n" {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestContainerStore: a node agent that kept descriptors could not hand them back, and
// its table of them is everybody's.
func TestContainerStore(t *testing.T) {
	c, warnings, err := Container("n", map[string]string{"fdstore.max": "100"}, label, false)
	if err != nil || c.FDStoreMax != 0 || len(warnings) != 1 {
		t.Errorf("%d descriptors, %q, %v", c.FDStoreMax, warnings, err)
	}
}

func TestNode(t *testing.T) {
	c, err := LoadNode(nil, []string{"PODNOTIFY_RUN_DIR=/run/x/", "PODNOTIFY_NAMESPACES=a, b", "PODNOTIFY_LISTEN=127.0.0.1:1"})
	if err != nil || c.RunDir != "/run/x" || len(c.Namespaces) != 2 || c.Namespaces[1] != "b" || c.Listen != "127.0.0.1:1" || c.Containerd != DefaultContainerd {
		t.Errorf("%+v, %v", c, err)
	}
	_, err = LoadNode(nil, []string{"PODNOTIFY_RUN_DIR=/run/x", "PODNOTIFY_LISTEN=here"})
	if err == nil || !strings.Contains(err.Error(), `cannot use listen "here" (from PODNOTIFY_LISTEN)`) {
		t.Error(err)
	}
}
