// Command pause is the first process of the tests' pods. As the one of real pods
// does, it reaps and waits to be told to end.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	news := make(chan os.Signal, 8)
	signal.Notify(news, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range news {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && err != syscall.EINTR {
				break
			}
		}
	}
}
