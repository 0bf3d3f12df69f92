package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// whoListens names the process that listens on a TCP port, " (process 1 x)", as
// far as /proc tells us. It is for an error message: empty if it does not.
func whoListens(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return ""
	}
	inode, uid := listening(n)
	if inode == "" {
		return ""
	}
	var closed []string // that do not show their descriptors, as a podnotify of the same user
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		fds, err := os.ReadDir(dir + "/fd")
		if errors.Is(err, fs.ErrPermission) && uidOf(dir) == uid {
			closed = append(closed, dir)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && to == "socket:["+inode+"]" {
				return called(dir)
			}
		}
	}
	if len(closed) == 1 {
		return called(closed[0])
	}
	return ""
}

// called is how a process is named.
func called(dir string) string {
	comm, _ := os.ReadFile(dir + "/comm")
	return fmt.Sprintf(" (process %s, %s)", filepath.Base(dir), strings.TrimSpace(string(comm)))
}

// uidOf is the effective uid of a process, empty if that is not to be had.
func uidOf(dir string) string {
	b, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(ids); len(f) > 1 {
				return f[1]
			}
		}
	}
	return ""
}

// listening is the inode and the uid of the socket that listens on a port.
func listening(port int) (inode, uid string) {
	const state = "0A"
	want := strings.ToUpper(hex.EncodeToString([]byte{byte(port >> 8), byte(port)}))
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == state && strings.HasSuffix(f[1], ":"+want) {
				return f[9], f[7]
			}
		}
	}
	return "", ""
}
