package cluster

import (
	"os"
	"testing"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

func TestMain(m *testing.M) {
	machine.Main()
	os.Exit(m.Run())
}

// TestKubernetes has one cluster for all: to bring it up costs more than most of
// what is tested.
func TestKubernetes(t *testing.T) {
	c := New(t)
	t.Log(c.Kubectl(t, "get", "nodes,pods,services", "-A", "-o", "wide"))
}
