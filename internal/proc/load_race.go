//go:build race

package proc

// load is for the race detector, to which nobody may talk within a system call.
//
//go:nosplit
//go:norace
func load(n *int32) int32 { return *n }
