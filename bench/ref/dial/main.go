// Dial asks a probe port with net.Dial, as it comes, and words of its own: a probe written
// in Go that does nothing else.
package main

import (
	"net"
	"os"
	"strings"
)

func main() {
	c, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		os.Exit(1)
	}
	if _, err := c.Write([]byte("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")); err != nil {
		os.Exit(1)
	}
	b := make([]byte, 4096)
	n, _ := c.Read(b)
	if !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
		os.Exit(1)
	}
}
