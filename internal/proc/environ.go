package proc

import "bytes"

// Environ reports whether process pid was started with the environment variable
// name. Only processes of our own user tell; false otherwise. A process that
// changes its environment later does not show it here.
func (f FS) Environ(pid int, name string) bool {
	b, err := f.read(pid, "environ")
	if err != nil {
		return false
	}
	return bytes.HasPrefix(b, []byte(name+"=")) || bytes.Contains(b, []byte("\x00"+name+"="))
}
