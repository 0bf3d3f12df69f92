package charts

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
)

// lint is helm lint --strict.
func lint(t *testing.T, dir, version string, values map[string]any) error {
	t.Helper()
	l := action.NewLint()
	v, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	l.KubeVersion = v
	l.Strict = true
	for _, m := range l.Run([]string{dir}, values).Messages {
		if m.Severity > 1 { // 1 is a remark
			return m
		}
	}
	return nil
}

func TestLint(t *testing.T) {
	for _, dir := range []string{app, library} {
		if err := lint(t, dir, kubernetes, map[string]any{}); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for name, file := range valuesFiles(t) {
		if err := lint(t, app, versionOf(name), read(t, file)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMisspelt: a name that nobody knows fails helm lint --strict, at every depth.
func TestMisspelt(t *testing.T) {
	good := "daemon.image.repository=x,podnotify.name=x,"
	if err := lint(t, app, kubernetes, set(t, good)); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{
		"replcias=2", "daemon.iamge.tag=1", "daemon.image.tga=1", "service.enable=false", "daemon.resources.limit.memory=1Gi",
		"daemon.ports[0].name=x,daemon.ports[0].containerPort=1,daemon.ports[0].prot=UDP", "podSecurityContext.runAsUser=1",
		"podnotify.nmae=x", "podnotify.config.exepct=stop", "podnotify.config.timeouts.strat=1m", "podnotify.probes.liveness.handler=http",
		"podnotify.probes.liveness.httpGet.failureThreshold=3", "podnotify.resources.limits=1", "podnotify.config.name=x",
	} {
		if err := lint(t, app, kubernetes, set(t, good+wrong)); err == nil {
			t.Errorf("%s passes", wrong)
		}
	}
}

// TestMisspeltLibrary: the library refuses it in anybody's chart.
func TestMisspeltLibrary(t *testing.T) {
	if _, err := ownChart(t, set(t, "podnotify.config.exepct=stop")); err == nil || !strings.Contains(err.Error(), "exepct") {
		t.Errorf("got %v", err)
	}
}

// set is --set.
func set(t *testing.T, s string) map[string]any {
	t.Helper()
	v, err := strvals.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// duration is a duration in whole seconds.
func duration(s string) int64 {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return int64(d.Round(time.Second) / time.Second)
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", c, err, out)
	}
	return string(out)
}
