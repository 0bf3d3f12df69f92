package rundir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLockIsNoFile: whoever may write to the run-dir cannot make podnotify wait, or
// write elsewhere.
func TestLockIsNoFile(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "lock")
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"a link":      func() error { return os.Symlink(elsewhere, lock) },
		"a FIFO":      func() error { return unix.Mkfifo(lock, 0o666) },
		"a directory": func() error { return os.Mkdir(lock, 0o777) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if d, err := Claim(dir); err == nil {
			d.Close()
			t.Errorf("%s is taken for the lock", name)
		} else if !strings.Contains(err.Error(), "--run-dir") {
			t.Errorf("%s: no cure: %v", name, err)
		}
		if err := os.Remove(lock); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(elsewhere); string(b) != "mine" {
		t.Errorf("written through a link: %q, %v", b, err)
	}
	d, err := Claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := Claim(dir); err == nil || !strings.Contains(err.Error(), "another podnotify (process ") {
		t.Errorf("claimed twice: %v", err)
	}
}
