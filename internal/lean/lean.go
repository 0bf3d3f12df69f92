// Package lean has a program begin on one processor.
//
// Packages are initialised in the order of their names as soon as what they import is, so
// this one must import nothing but the runtime: then it comes before nearly all others. What a
// program allocates on a second processor lies in pages of its own, and when that processor
// is given up again its half-used pages are kept in lists, a page for each size of object:
// 0.6 MB together, for life, on two processors.
//
// A command that asks something stays on the one, podnotify-healthcheck too; a podnotify that
// serves chooses, see travelLight.
package lean

import "runtime"

// Procs is how many processors there would have been, as the environment's GOMAXPROCS says
// or the runtime finds.
var Procs = runtime.GOMAXPROCS(1)
