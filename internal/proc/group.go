package proc

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SignalGroup sends a signal to the process and, if it leads a process group, to the
// others in that. Before Linux 6.9 each of them is signalled by its own pidfd, and
// one that is forked meanwhile may be missed. A group that we are in is left alone
// but for the process.
//
// Its errors are those of [Handle.Signal].
func (h *Handle) SignalGroup(sig unix.Signal) error {
	st, err := h.fs.Stat(h.id.PID)
	if err != nil || st.ID() != h.id || st.PGID != h.id.PID || st.PGID == unix.Getpgrp() {
		return h.Signal(sig)
	}
	if err := h.signalBy(sig, h.sendGroup); !errors.Is(err, unix.EINVAL) {
		return err
	}
	h.signalMembers(sig)
	return h.Signal(sig)
}

// sendGroup is the one system call.
func (h *Handle) sendGroup(sig unix.Signal) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return os.ErrClosed
	}
	return unix.PidfdSendSignal(h.fd, sig, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
}

// signalMembers signals everybody in the group of the process but the process.
func (h *Handle) signalMembers(sig unix.Signal) {
	table, err := h.fs.Table()
	if err != nil {
		return
	}
	for pid, st := range table {
		if st.PGID != h.id.PID || pid == h.id.PID || st.State.Dead() {
			continue
		}
		m, err := h.fs.OpenID(st.ID())
		if err != nil {
			continue
		}
		if now, err := h.fs.Stat(pid); err == nil && now.ID() == m.ID() && now.PGID == h.id.PID {
			_ = m.Signal(sig) // the caller hears of the leader
		}
		m.Close()
	}
}
