package ask

import (
	"bytes"
	"io"
	"strconv"
	"strings"
)

const (
	maxHead = 16 << 10
	maxBody = 16 << 20 // of /statusz with thousands of services
)

// malformed is what is wrong with an answer: it is not one of podnotify's.
type malformed string

func (m malformed) Error() string { return string(m) }

// read reads one answer: its code and body. It reads no more than the two
// limits, whatever is sent, and fails as soon as it cannot be HTTP. An answer
// that ends too early is io.ErrUnexpectedEOF.
func read(r io.Reader) (code int, body string, err error) {
	b := make([]byte, 0, 4096) // the answer of a probe fits
	var end int
	for {
		if bad := notHTTP(b); bad {
			return 0, "", malformed("it is not HTTP: " + strconv.Quote(string(b[:min(len(b), 20)])))
		}
		if end = bytes.Index(b, []byte("\r\n\r\n")); end >= 0 {
			break
		}
		if len(b) > maxHead {
			return 0, "", malformed("its header is longer than " + strconv.Itoa(maxHead) + " bytes")
		}
		if b, err = more(r, b); err != nil {
			return 0, "", tooEarly(err)
		}
	}
	code, length, err := parseHead(string(b[:end]))
	if err != nil {
		return 0, "", err
	}
	if code == 204 || code == 304 {
		length = 0
	}
	b = b[end+4:]
	for length < 0 || len(b) < length {
		if len(b) > maxBody {
			return 0, "", malformed("it is longer than " + strconv.Itoa(maxBody) + " bytes")
		}
		if b, err = more(r, b); err != nil {
			if err == io.EOF && length < 0 { // the end of the connection is that of the answer
				return code, string(b), nil
			}
			return 0, "", tooEarly(err)
		}
	}
	return code, string(b[:length]), nil
}

// notHTTP reports that no answer begins with b.
func notHTTP(b []byte) bool {
	const version = "HTTP/1."
	n := min(len(b), len(version))
	return string(b[:n]) != version[:n]
}

// more reads once, into a buffer that doubles when it is full.
func more(r io.Reader, b []byte) ([]byte, error) {
	if len(b) == cap(b) {
		b = append(make([]byte, 0, 2*cap(b)+512), b...)
	}
	n, err := r.Read(b[len(b):cap(b)])
	if n > 0 {
		err = nil // it comes again
	}
	return b[:len(b)+n], err
}

func tooEarly(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseHead reads the lines before the body. length is -1 if it is not told.
func parseHead(head string) (code, length int, err error) {
	status, rest, _ := strings.Cut(head, "\r\n")
	// HTTP/1.1 200 OK
	if len(status) < 12 || status[7] < '0' || status[7] > '9' || status[8] != ' ' || len(status) > 12 && status[12] != ' ' {
		return 0, 0, malformed("its first line is " + strconv.Quote(status))
	}
	n, err := strconv.ParseUint(status[9:12], 10, 16)
	if err != nil || n < 200 || n > 599 {
		return 0, 0, malformed("its status code is " + strconv.Quote(status[9:12]))
	}
	length = -1
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\r\n")
		name, value, found := strings.Cut(line, ":")
		if !found || name == "" || strings.ContainsAny(name, " \t") {
			return 0, 0, malformed("a line of its header is " + strconv.Quote(line))
		}
		value = strings.Trim(value, " \t")
		switch {
		case strings.EqualFold(name, "Content-Length"):
			l, err := strconv.ParseUint(value, 10, 31)
			switch {
			case err != nil:
				return 0, 0, malformed("its Content-Length is " + strconv.Quote(value))
			case length >= 0 && length != int(l):
				return 0, 0, malformed("it has two lengths, " + strconv.Itoa(length) + " and " + value)
			case l > maxBody:
				return 0, 0, malformed("it is longer than " + strconv.Itoa(maxBody) + " bytes")
			}
			length = int(l)
		case strings.EqualFold(name, "Transfer-Encoding"):
			return 0, 0, malformed("it comes in Transfer-Encoding " + strconv.Quote(value) + ", which podnotify does not use")
		}
	}
	return int(n), length, nil
}
