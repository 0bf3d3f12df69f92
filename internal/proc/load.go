//go:build !race

package proc

import "sync/atomic"

// load is atomic, and may be called within a system call: see Reflex.
//
//go:nosplit
func load(n *int32) int32 { return atomic.LoadInt32(n) }
