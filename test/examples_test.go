package test

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
)

// TestDaemonExamples runs what is in examples/daemons as it is written there:
// each daemon's command line and configuration, as another user and with ports
// of its own, under the service's configuration.
func TestDaemonExamples(t *testing.T) {
	t.Parallel()
	needRoot(t)
	unshare, setpriv := need(t, "unshare", "util-linux"), need(t, "setpriv", "util-linux")
	files, err := filepath.Glob("../examples/daemons/*/values.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	debian := map[string]string{"named": "bind9", "redis": "redis-server"}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var values struct {
				Daemon struct {
					Command, Args []string
					VolumeMounts  []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name      string
					ConfigMap map[string]string `yaml:"configMap"`
				}
				Podnotify struct {
					Name   string
					Config struct {
						Expect  string
						Signals struct{ Reload string }
					}
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := yaml.Unmarshal(b, &values); err != nil {
				t.Fatal(err)
			}
			argv := slices.Concat(values.Daemon.Command, values.Daemon.Args)
			need(t, argv[0], cmp.Or(debian[name], name))

			// A directory takes the place of each mount, on the command line and in
			// the daemon's configuration.
			const uid = 65532
			var replace []string
			config := ""
			for _, m := range values.Daemon.VolumeMounts {
				dir := tempDir(t)
				if err := os.Chown(dir, uid, uid); err != nil {
					t.Fatal(err)
				}
				replace = append(replace, m.MountPath, dir)
				for _, v := range values.Volumes {
					if v.Name == m.Name && v.ConfigMap != nil {
						config = dir
					}
				}
			}
			paths := strings.NewReplacer(replace...)
			for i := range argv {
				argv[i] = paths.Replace(argv[i])
			}
			if config != "" {
				all, err := filepath.Glob(filepath.Dir(file) + "/*")
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range all {
					b, err := os.ReadFile(f)
					if err != nil {
						t.Fatal(err)
					}
					write(t, filepath.Join(config, filepath.Base(f)), paths.Replace(string(b)))
				}
			} else { // redis keeps its data where it is started
				argv = append(argv, "--dir", replace[1])
			}

			flags := []string{"--service=" + name, "--expect=" + values.Podnotify.Config.Expect}
			reload := values.Podnotify.Config.Signals.Reload
			if reload != "" {
				flags = append(flags, "--signals-reload="+reload)
			}
			through := []string{unshare, "--net", setpriv, "--reuid=65532", "--regid=65532", "--clear-groups", "--"}
			n := newPod(t).supervised(t, order{}, flags, slices.Concat(through, argv)...)
			n.until("/readyz/"+name, 200)
			if reload != "" {
				n.says("daemon is ready")
				before := len(n.history())
				if code, _, stderr := n.command("reload"); code != 0 {
					t.Fatalf("reload: %s", stderr)
				}
				eventually(t, "the reload is told", func() bool { return len(n.history()) >= before+2 })
				n.until("/readyz/"+name, 200)
			}
			n.signal(unix.SIGTERM)
			for range 30 { // mosquitto forgets a TERM that comes right after its READY=1
				if name != "mosquitto" || n.over() {
					break
				}
				select {
				case <-n.ended:
				case <-time.After(time.Second):
					_ = n.Signal(unix.SIGTERM) // or it has just ended
				}
			}
			if code := n.exit(); code != 0 {
				t.Errorf("exit code %d\n%s", code, &n.stderr)
			}
		})
	}
}
