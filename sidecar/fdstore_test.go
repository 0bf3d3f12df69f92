package sidecar

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon keeps its own number of what it stores. When that hangs up, it is
// dropped once and not looked at again, although it is open all the same.
func TestStoredHangsUpWhileTheDaemonHasIt(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	daemons, peer := os.NewFile(uintptr(fds[0]), "daemon's"), os.NewFile(uintptr(fds[1]), "peer")
	defer daemons.Close()
	ours, err := unix.FcntlInt(daemons.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := newFDStore(4)
	if f.add([]int{ours}, "x", true); f.count() != 1 {
		t.Fatal("not stored")
	}
	peer.Close()
	for end := time.Now().Add(30 * time.Second); f.count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("kept although it hung up")
		}
	}
	// One who is told of it again and again is never done.
	done := make(chan struct{})
	go func() { f.close(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("still busy with what it has dropped")
	}
}
