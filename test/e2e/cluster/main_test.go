package cluster

import (
	"os"
	"os/exec"
	"testing"

	"github.com/podnotify/podnotify/test/e2e/machine"
)

func TestMain(m *testing.M) {
	machine.Main()
	os.Exit(m.Run())
}

// helmProgram is the one that make e2e has built, or any.
func helmProgram(t *testing.T) string {
	t.Helper()
	if helm := os.Getenv("HELM"); helm != "" {
		return helm
	}
	helm, err := exec.LookPath("helm")
	if err != nil {
		machine.Lacking(t, "missing helm; make e2e builds it, HELM names it")
	}
	return helm
}
