package proc

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors remembers whether this process has run out of file descriptors, which
// is nobody's fault in particular and everybody's trouble. The nil one remembers
// nothing.
type Descriptors struct {
	log     *slog.Logger
	trouble atomic.Pointer[string]
	times   atomic.Uint64
	over    *time.Timer
}

// calm is how long descriptors have to be had before the trouble is over.
const calm = 10 * time.Second

// NewDescriptors returns one that writes to log when trouble begins and ends.
func NewDescriptors(log *slog.Logger) *Descriptors {
	d := &Descriptors{log: log}
	d.over = time.AfterFunc(time.Hour, func() {
		if d.trouble.Swap(nil) != nil {
			d.log.Info("descriptors are to be had again")
		}
	})
	d.over.Stop()
	return d
}

// Exhausted reports whether err says that there was no descriptor left to be had,
// here (EMFILE) or on the whole machine (ENFILE), and takes note of it.
func (d *Descriptors) Exhausted(err error) bool {
	if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
		return false
	}
	if d == nil {
		return true
	}
	d.times.Add(1)
	d.over.Reset(calm)
	if d.trouble.Load() != nil {
		return true
	}
	text := "this machine has no file descriptors left (fs.file-max)"
	if errors.Is(err, unix.EMFILE) {
		text = fmt.Sprintf("all %d descriptors that this process may have are in use; raise its limit of open files (ulimit -n)", DescriptorLimit())
	}
	if d.trouble.CompareAndSwap(nil, &text) {
		d.log.Warn(text)
	}
	return true
}

// Times counts what could not be done for want of a descriptor.
func (d *Descriptors) Times() uint64 {
	if d == nil {
		return 0
	}
	return d.times.Load()
}

// Trouble is what is wrong, nil if nothing is. The pointer changes whenever that does.
func (d *Descriptors) Trouble() *string {
	if d == nil {
		return nil
	}
	return d.trouble.Load()
}

// DescriptorLimit is how many descriptors this process may have (RLIMIT_NOFILE).
func DescriptorLimit() uint64 {
	var r unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &r) // fails for unknown limits only
	return r.Cur
}
