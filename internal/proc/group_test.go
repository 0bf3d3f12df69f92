package proc

import (
	"context"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A leader takes its group with it, by either way of the kernel; others do not.
func TestSignalGroup(t *testing.T) {
	in := func(group int) func(*exec.Cmd) {
		return func(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: group} }
	}
	ended := func(h *Handle) bool {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return h.Wait(ctx) == nil
	}
	for name, signal := range map[string]func(*Handle, unix.Signal) error{
		"at once": (*Handle).SignalGroup,
		"one by one": func(h *Handle, sig unix.Signal) error {
			h.signalMembers(sig)
			return h.Signal(sig)
		},
	} {
		t.Run(name, func(t *testing.T) {
			leader := start(t, "sit", in(0))
			h, member, other := open(t, leader.pid), open(t, start(t, "sit", in(leader.pid)).pid), open(t, start(t, "sit", in(0)).pid)
			if err := signal(h, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if !ended(h) || !ended(member) {
				t.Errorf("the leader has ended: %v, the member has: %v; want both", h.Ended(), member.Ended())
			}
			if other.Ended() {
				t.Error("another group was signalled")
			}
		})
	}
	t.Run("no leader", func(t *testing.T) {
		leader := start(t, "sit", in(0))
		h, member := open(t, leader.pid), open(t, start(t, "sit", in(leader.pid)).pid)
		if err := member.SignalGroup(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if !ended(member) || h.Ended() {
			t.Errorf("the member has ended: %v, the leader has: %v; want the first alone", member.Ended(), h.Ended())
		}
	})
	t.Run("our own group", func(t *testing.T) {
		h := open(t, start(t, "sit").pid)
		if err := h.SignalGroup(unix.SIGKILL); err != nil { // or this test ends here
			t.Fatal(err)
		}
		if !ended(h) {
			t.Error("it has not ended")
		}
	})
}
