//go:build race

package proc

func init() { race = true }
