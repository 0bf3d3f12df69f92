package notify

import (
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// maxErrno is the largest errno the kernel can return (MAX_ERRNO).
const maxErrno = 4095

// ParseErrno reads the value of ERRNO= as systemd's parse_errno does: a number from 0
// to 4095, spelled as for [ParseUint], or a symbolic name such as ENOENT. The error is
// [strconv.ErrSyntax] or [strconv.ErrRange].
func ParseErrno(b []byte) (int, error) {
	if n, ok := errnoNumbers()[string(b)]; ok {
		return n, nil
	}
	n, err := ParseUint(b)
	if err != nil {
		return 0, err
	}
	if n > maxErrno {
		return 0, strconv.ErrRange
	}
	return int(n), nil
}

// ErrnoName returns the symbolic name of an errno of this architecture, or "" if it
// has none.
func ErrnoName(n int) string {
	switch {
	case n <= 0 || n > maxErrno:
		return ""
	case n == int(unix.EOPNOTSUPP): // x/sys picks ENOTSUP, which no kernel header defines
		return "EOPNOTSUPP"
	}
	return unix.ErrnoName(unix.Errno(n))
}

// errnoNumbers is the way back from ErrnoName, with the second names some errnos have.
var errnoNumbers = sync.OnceValue(func() map[string]int {
	m := map[string]int{
		"EDEADLOCK":   int(unix.EDEADLOCK),
		"ENOTSUP":     int(unix.ENOTSUP),
		"EWOULDBLOCK": int(unix.EWOULDBLOCK),
	}
	for n := 1; n <= maxErrno; n++ {
		if name := ErrnoName(n); name != "" {
			m[name] = n
		}
	}
	return m
})
