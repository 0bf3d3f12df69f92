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

// helmProgram is where make e2e has built it, or any.
func helmProgram(t *testing.T) string {
	t.Helper()
	if helm := os.Getenv("HELM"); helm != "" {
		return helm
	}
	return machine.Need(t, "helm", "nothing in Debian 12: run make e2e, which builds it")
}
