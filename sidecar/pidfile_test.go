package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// What lies where the PID file should be is the daemon's to choose. Nothing of it
// may hold us, or fill our memory.
func TestPIDFileOfAnyKind(t *testing.T) {
	dir := t.TempDir()
	pipe, endless, large, links := dir+"/pipe", dir+"/endless", dir+"/large", dir+"/links"
	for _, err := range []error{
		unix.Mkfifo(pipe, 0o666),
		os.Symlink("/dev/zero", endless),
		os.WriteFile(large, append([]byte("7\n"), make([]byte, 1<<20)...), 0o666),
		os.Symlink(links, links),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]struct {
		pid int
		err error
	}{
		pipe:            {0, errNoFile},
		endless:         {0, errNoFile},
		dir:             {0, errNoFile},
		large:           {7, nil},
		links:           {0, unix.ELOOP},
		dir + "/nobody": {0, os.ErrNotExist},
	} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := newService(Config{Name: "d", PIDFile: path, Policy: lifecycle.DefaultPolicy()}, Deps{})
			done := make(chan struct{})
			var pid int
			var err error
			go func() {
				defer close(done)
				pid, err = s.pidFile()
			}()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				if f, err := os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
					f.Close() // lets it go
				}
				t.Fatal("it waits")
			}
			if pid != want.pid || !errors.Is(err, want.err) {
				t.Errorf("%d, %v; want %d, %v", pid, err, want.pid, want.err)
			}
		})
	}
}
