package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstall installs twice, over what is there and under a closed umask: two
// programs that run, and nothing else.
func TestInstall(t *testing.T) {
	dir := filepath.Join(tempDir(t), "a", "b")
	for range 2 {
		if out, err := exec.Command("sh", "-c", `umask 077; exec "$0" install "$1"`, bin.podnotify, dir).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%v: %s", err, out)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 2 {
			t.Fatalf("%v, %v", entries, err)
		}
		for _, name := range []string{"podnotify", "podnotify-healthcheck"} {
			path := filepath.Join(dir, name)
			if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o755 {
				t.Errorf("%v, %v", fi.Mode(), err)
			}
			if out, err := exec.Command(path, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), name) {
				t.Errorf("%s: %v: %s", name, err, out)
			}
		}
	}
	// An installed one installs, and replaces what is running: itself.
	if out, err := exec.Command(filepath.Join(dir, "podnotify"), "install", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// TestInstallFails leaves what was there as it was, and nothing beside it.
func TestInstallFails(t *testing.T) {
	dir := tempDir(t)
	if err := os.Mkdir(filepath.Join(dir, "podnotify"), 0o755); err != nil { // no file can take its place
		t.Fatal(err)
	}
	out, err := exec.Command(bin.podnotify, "install", dir).CombinedOutput()
	if want := "podnotify: cannot write podnotify into " + dir + ": file exists\n"; err == nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}
