package proc

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Hides returns the mount option by which procfs hides processes of other users from
// us, "hidepid=invisible" say; empty if it hides none. See proc(5): who is in the
// group gid=, 0 if there is none, is exempt from the first two kinds, and who has
// CAP_SYS_PTRACE is from all.
func (f FS) Hides() string {
	b, err := f.read(os.Getpid(), "mountinfo")
	if err != nil {
		return ""
	}
	option := hidepid(string(b), path.Clean(string(f)), func(gid int) bool {
		groups, _ := unix.Getgroups()
		return gid == unix.Getegid() || slices.Contains(groups, gid)
	})
	if option == "" || f.tracer() {
		return ""
	}
	return option
}

// hidepid finds the option in mountinfo, whose last mount on a directory is the one
// that is seen.
func hidepid(mountinfo, dir string, in func(gid int) bool) (option string) {
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 /root /mountpoint options ... - type source options; proc_pid_mountinfo(5)
		mount, super, _ := strings.Cut(line, " - ")
		at, of := strings.Fields(mount), strings.Fields(super)
		if len(at) < 5 || at[4] != dir || len(of) < 3 {
			continue
		}
		option = ""
		if of[0] != "proc" {
			continue
		}
		how, gid := "", 0
		for o := range strings.SplitSeq(of[2], ",") {
			if v, ok := strings.CutPrefix(o, "hidepid="); ok {
				how = v
			} else if v, ok := strings.CutPrefix(o, "gid="); ok {
				gid, _ = strconv.Atoi(v)
			}
		}
		switch how { // words since Linux 5.8
		case "", "0", "off":
		case "4", "ptraceable":
			option = "hidepid=" + how
		default:
			if !in(gid) {
				option = "hidepid=" + how
			}
		}
	}
	return option
}

// tracer reports whether we have CAP_SYS_PTRACE.
func (f FS) tracer() bool {
	fields, err := f.status(os.Getpid(), "CapEff:")
	if err != nil || len(fields) != 1 {
		return false
	}
	set, err := strconv.ParseUint(fields[0], 16, 64)
	return err == nil && set>>unix.CAP_SYS_PTRACE&1 == 1
}
