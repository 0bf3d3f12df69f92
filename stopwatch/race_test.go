//go:build race

package stopwatch

func init() { race = true }
