package proc

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// getInfo is PIDFD_GET_INFO with the size of its first version (Linux 6.13),
// which every kernel that has it takes, and which holds all that we ask.
const getInfo = 3<<30 | unix.PIDFD_INFO_SIZE_VER0<<16 | 0xff<<8 | 11 // _IOWR(PIDFS_IOCTL_MAGIC, 11, ...)

// info asks the kernel about the process. The answer's mask says what it told.
//
// ESRCH does not mean that the process is dead: the first kernels with this call
// answer so for every process whose parent lives outside our PID namespace, as
// that of a container's entry process does. Ask poll.
func (h *Handle) info(mask uint64) (unix.PidfdInfo, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return unix.PidfdInfo{}, os.ErrClosed
	}
	return infoOf(h.fd, mask)
}

func infoOf(pidfd int, mask uint64) (unix.PidfdInfo, error) {
	info := unix.PidfdInfo{Mask: mask}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(pidfd), getInfo, uintptr(unsafe.Pointer(&info)))
	if e != 0 {
		return unix.PidfdInfo{}, e
	}
	return info, nil
}
