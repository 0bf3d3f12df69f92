package notify

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// describe spells out a message: flags, values, unknown names.
func describe(m *Message) string {
	var s []string
	for i := range 9 {
		if f := Flag(1 << i); m.Has(f) {
			s = append(s, "flag:"+flagLines[f])
		}
	}
	for k := range numKeys {
		if v, ok := m.Value(k); ok {
			s = append(s, fmt.Sprintf("%v:%q", k, v))
		}
	}
	n := 0
	for name := range m.UnknownKeys() {
		s = append(s, fmt.Sprintf("?%q", name))
		n++
	}
	if n != m.Unknown() {
		s = append(s, fmt.Sprintf("UNKNOWN COUNT %d, NAMES %d", m.Unknown(), n))
	}
	if m.BarrierOnly() {
		s = append(s, "barrier-only")
	}
	return strings.Join(s, " ")
}

var flagLines = map[Flag]string{
	FlagReady: "READY=1", FlagReloading: "RELOADING=1", FlagStopping: "STOPPING=1",
	FlagMainPIDFD: "MAINPIDFD=1", FlagRestartReset: "RESTART_RESET=1", FlagFDStore: "FDSTORE=1",
	FlagFDStoreRemove: "FDSTOREREMOVE=1", FlagFDPollOff: "FDPOLL=0", FlagBarrier: "BARRIER=1",
}

// model is Parse and describe once more, by other means: whole lines as strings.
func model(b []byte) (string, error) {
	if len(b) > 4096 {
		return "", ErrTooLong
	}
	text := strings.TrimSuffix(string(b), "\x00")
	if strings.Contains(text, "\x00") {
		return "", ErrNUL
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	var s []string
	var prefixes []string
	for i := range 9 {
		line := flagLines[1<<i]
		prefixes = append(prefixes, line[:len(line)-1])
		if slices.Contains(lines, line) {
			s = append(s, "flag:"+line)
		}
	}
	for k := range numKeys {
		prefixes = append(prefixes, k.String()+"=")
		for _, line := range lines {
			if v, ok := strings.CutPrefix(line, k.String()+"="); ok {
				s = append(s, fmt.Sprintf("%v:%q", k, v))
				break
			}
		}
	}
	for _, line := range lines {
		if !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			name, _, _ := strings.Cut(line, "=")
			s = append(s, fmt.Sprintf("?%q", name))
		}
	}
	if slices.Equal(lines, []string{"BARRIER=1"}) {
		s = append(s, "barrier-only")
	}
	return strings.Join(s, " "), nil
}

var datagrams = []struct{ name, in, want string }{
	{"empty", "", ``},
	{"ready", "READY=1", `flag:READY=1`},
	{"newline at the end", "READY=1\n", `flag:READY=1`},
	{"carriage returns", "\r\n\rREADY=1\r\n\n\nSTOPPING=1\r", `flag:READY=1 flag:STOPPING=1`},
	{"trailing NUL", "READY=1\x00", `flag:READY=1`},
	{"only a NUL", "\x00", ``},
	{"ready after status", "STATUS=up\nREADY=1", `flag:READY=1 STATUS:"up"`},
	{"ready is a line, not a prefix", "READY=10", ``},
	{"ready is a line, not a part", "STATUS=READY=1", `STATUS:"READY=1"`},
	{"no other value of ready", "READY=0\nREADY=yes\nREADY=", ``},
	{"flags are repeatable", "READY=0\nREADY=1\nREADY=0", `flag:READY=1`},
	{"capitals count", "ready=1\nStatus=x", `?"ready" ?"Status"`},
	{"no trimming", " READY=1\nREADY=1 \nREADY =1\nSTATUS= a b ", `STATUS:" a b " ?" READY" ?"READY "`},
	{"first value wins", "STATUS=a\nSTATUS=b\nMAINPID=1\nMAINPID=2", `MAINPID:"1" STATUS:"a"`},
	{"first value wins, even empty", "STATUS=\nSTATUS=b", `STATUS:""`},
	{"backslashes stay", "STATUS=C:\\tmp\\\nREADY=1\\", `STATUS:"C:\\tmp\\"`},
	{"backslash at the end", "READY=1\nSTATUS=a\\", `flag:READY=1 STATUS:"a\\"`},
	{"quotes stay", "STATUS=\"a 'b\n", `STATUS:"\"a 'b"`},
	{"equals signs in a value", "STATUS=a=b=", `STATUS:"a=b="`},
	{"not UTF-8", "STATUS=\xff\xfe\nREADY=1", `flag:READY=1 STATUS:"\xff\xfe"`},
	{"unknown lines", "READY\nX_FOO=bar\n=\n)\nX_FOO", `?"READY" ?"X_FOO" ?"" ?")" ?"X_FOO"`},
	{"fdpoll is the odd one", "FDPOLL=0", `flag:FDPOLL=0`},
	{"fdpoll on is nothing", "FDPOLL=1", ``},
	{"barrier", "BARRIER=1\n", `flag:BARRIER=1 barrier-only`},
	{"barrier and more", "BARRIER=1\nREADY=1", `flag:READY=1 flag:BARRIER=1`},
	{"barrier and something unknown", "x\nBARRIER=1", `flag:BARRIER=1 ?"x"`},
	{"all flags", "READY=1\nRELOADING=1\nSTOPPING=1\nMAINPIDFD=1\nRESTART_RESET=1\nFDSTORE=1\nFDSTOREREMOVE=1\nFDPOLL=0\nBARRIER=1",
		`flag:READY=1 flag:RELOADING=1 flag:STOPPING=1 flag:MAINPIDFD=1 flag:RESTART_RESET=1 flag:FDSTORE=1 flag:FDSTOREREMOVE=1 flag:FDPOLL=0 flag:BARRIER=1`},
	{"all keys", "MAINPID=1\nMAINPIDFDID=2\nSTATUS=3\nNOTIFYACCESS=4\nERRNO=5\nBUSERROR=6\nVARLINKERROR=7\nEXIT_STATUS=8\nMONOTONIC_USEC=9\nEXTEND_TIMEOUT_USEC=10\nWATCHDOG=11\nWATCHDOG_USEC=12\nFDNAME=13",
		`MAINPID:"1" MAINPIDFDID:"2" STATUS:"3" NOTIFYACCESS:"4" ERRNO:"5" BUSERROR:"6" VARLINKERROR:"7" EXIT_STATUS:"8" MONOTONIC_USEC:"9" EXTEND_TIMEOUT_USEC:"10" WATCHDOG:"11" WATCHDOG_USEC:"12" FDNAME:"13"`},
}

func TestParse(t *testing.T) {
	var m Message // one for all: nothing of an earlier message may shine through
	for _, tt := range datagrams {
		if err := m.Parse([]byte(tt.in)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got := describe(&m); got != tt.want {
			t.Errorf("%s: %q\n got %s\nwant %s", tt.name, tt.in, got, tt.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	long := []byte("READY=1\nSTATUS=" + strings.Repeat("x", MaxDatagram))
	for _, tt := range []struct {
		in   []byte
		want error
	}{
		{long[:MaxDatagram], nil},
		{long[:MaxDatagram+1], ErrTooLong},
		{[]byte("READY=1\x00\x00"), ErrNUL},
		{[]byte("READY=1\x00\n"), ErrNUL},
		{[]byte("\x00READY=1"), ErrNUL},
		{append(slices.Clone(long[:MaxDatagram]), 0), ErrTooLong},
	} {
		var m Message
		if m.Parse([]byte("STOPPING=1\nFDNAME=x\ny")); describe(&m) == "" {
			t.Fatal("nothing to forget")
		}
		if err := m.Parse(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("%.20q...: got %v, want %v", tt.in, err, tt.want)
		} else if got := describe(&m); err != nil && got != "" {
			t.Errorf("%.20q...: not empty after an error: %s", tt.in, got)
		}
	}
}

func TestMessageZero(t *testing.T) {
	var m Message
	if got := describe(&m); got != "" {
		t.Errorf("the zero message says %s", got)
	}
	if _, ok := m.Value(numKeys + 200); ok {
		t.Error("a key that does not exist has a value")
	}
}

func TestHasAll(t *testing.T) {
	var m Message
	m.Parse([]byte("READY=1"))
	if m.Has(FlagReady | FlagStopping) {
		t.Error("Has must ask for every flag")
	}
}

func TestUnknownKeysStops(t *testing.T) {
	var m Message
	m.Parse([]byte("a\nREADY=1\nb=2\nc"))
	for name := range m.UnknownKeys() {
		if string(name) == "b" {
			return
		}
	}
	t.Error("b not met")
}

// Values must point into the datagram and must not reach beyond their line.
func TestValueAliases(t *testing.T) {
	b := []byte("STATUS=abc\nREADY=1")
	var m Message
	m.Parse(b)
	v, _ := m.Value(KeyStatus)
	b[7] = 'X'
	if string(v) != "Xbc" {
		t.Errorf("value is a copy: %q", v)
	}
	if _ = append(v, '!'); b[10] != '\n' {
		t.Error("appending to a value overwrites the datagram")
	}
}

func TestParseAllocates(t *testing.T) {
	var m Message
	b := []byte("READY=1\nMAINPID=4711\nSTATUS=up\nX_FOO=1\nERRNO=ENOENT")
	ParseErrno([]byte("ENOENT")) // its table is made at the first use
	allocs := testing.AllocsPerRun(100, func() {
		m.Parse(b)
		v, _ := m.Value(KeyMainPID)
		ParsePID(v)
		ParseUint(v)
		v, _ = m.Value(KeyErrno)
		ParseErrno(v)
		ParsePID(nil)
		for range m.UnknownKeys() {
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzParse(f *testing.F) {
	for _, d := range datagrams {
		f.Add([]byte(d.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again Message
		err := m.Parse(b)
		got := describe(&m)
		want, wantErr := model(b)
		if err != wantErr || got != want {
			t.Fatalf("%q\n got %s, %v\nwant %s, %v", b, got, err, want, wantErr)
		}
		if err != nil {
			return
		}
		// The same lines joined in the plain way say the same.
		lines := bytes.FieldsFunc(m.buf, func(r rune) bool { return r == '\n' || r == '\r' })
		if err := again.Parse(bytes.Join(lines, []byte("\n"))); err != nil || describe(&again) != got {
			t.Fatalf("%q rejoined\n got %s, %v\nwant %s", b, describe(&again), err, got)
		}
	})
}

func TestParseUint(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want uint64
		err  error
	}{
		{"0", 0, nil},
		{"42", 42, nil},
		{"+42", 42, nil},
		{" \t\n\v\f\r42", 42, nil},
		{" +42", 42, nil},
		{"18446744073709551615", 1<<64 - 1, nil},
		{"0xffffffffffffffff", 1<<64 - 1, nil},
		{"0XfF", 255, nil},
		{"+0x10", 16, nil},
		{"0b101", 5, nil},
		{"0B1", 1, nil},
		{"0o17", 15, nil},
		{"0O17", 15, nil},
		{"017", 15, nil},
		{"00", 0, nil},
		{"", 0, strconv.ErrSyntax},
		{" ", 0, strconv.ErrSyntax},
		{"+", 0, strconv.ErrSyntax},
		{"++1", 0, strconv.ErrSyntax},
		{"+ 1", 0, strconv.ErrSyntax},
		{"-1", 0, strconv.ErrSyntax},
		{"1 ", 0, strconv.ErrSyntax},
		{"1_000", 0, strconv.ErrSyntax},
		{"1.0", 0, strconv.ErrSyntax},
		{"08", 0, strconv.ErrSyntax},
		{"0x", 0, strconv.ErrSyntax},
		{"0b", 0, strconv.ErrSyntax},
		{"0b2", 0, strconv.ErrSyntax},
		{"0o8", 0, strconv.ErrSyntax},
		{"0b+1", 0, strconv.ErrSyntax},
		{"+0b1", 0, strconv.ErrSyntax},
		{"0xg", 0, strconv.ErrSyntax},
		{"ff", 0, strconv.ErrSyntax},
		{"18446744073709551616", 0, strconv.ErrRange},
		{"0x10000000000000000", 0, strconv.ErrRange},
		{"99999999999999999999999", 0, strconv.ErrRange},
		{"99999999999999999999999x", 0, strconv.ErrSyntax},
	} {
		if got, err := ParseUint([]byte(tt.in)); got != tt.want || err != tt.err {
			t.Errorf("%q: got %d, %v, want %d, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseUint(f *testing.F) {
	f.Add("+0x1F")
	f.Add("0b+1")
	f.Add("18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseUint([]byte(s))
		// Go's own syntax with base 0 is the same but for the sign, white space and _.
		plain := strings.TrimLeft(s, " \t\n\v\f\r")
		if p := strings.ToLower(plain); !strings.HasPrefix(p, "+0b") && !strings.HasPrefix(p, "+0o") {
			plain = strings.TrimPrefix(plain, "+")
		}
		want, wantErr := strconv.ParseUint(plain, 0, 64)
		if strings.Contains(plain, "_") {
			wantErr = strconv.ErrSyntax
		}
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Errorf("%q: got %d, %v, want %d, %v", s, got, err, want, wantErr)
		}
	})
}

func TestParsePID(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int
		err  error
	}{
		{"1", 1, nil},
		{"2147483647", 1<<31 - 1, nil},
		{"0x10", 16, nil},
		{"0", 0, strconv.ErrRange},
		{"2147483648", 0, strconv.ErrRange},
		{"4294967297", 0, strconv.ErrRange},
		{"-1", 0, strconv.ErrSyntax},
		{"self", 0, strconv.ErrSyntax},
		{"", 0, strconv.ErrSyntax},
	} {
		if got, err := ParsePID([]byte(tt.in)); got != tt.want || err != tt.err {
			t.Errorf("%q: got %d, %v, want %d, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParseErrno(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int
		err  error
	}{
		{"0", 0, nil},
		{"2", 2, nil},
		{"ENOENT", 2, nil},
		{"EAGAIN", 11, nil},
		{"EWOULDBLOCK", 11, nil},
		{"EOPNOTSUPP", 95, nil},
		{"ENOTSUP", 95, nil},
		{"EDEADLOCK", 35, nil},
		{"4095", 4095, nil},
		{"4096", 0, strconv.ErrRange},
		{"-2", 0, strconv.ErrSyntax},
		{"enoent", 0, strconv.ErrSyntax},
		{"ENOSUCH", 0, strconv.ErrSyntax},
		{"", 0, strconv.ErrSyntax},
	} {
		if got, err := ParseErrno([]byte(tt.in)); got != tt.want || err != tt.err {
			t.Errorf("%q: got %d, %v, want %d, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestErrnoName(t *testing.T) {
	for n, want := range map[int]string{-1: "", 0: "", 1: "EPERM", 11: "EAGAIN", 95: "EOPNOTSUPP", 133: "EHWPOISON", 4095: "", 1 << 40: ""} {
		if got := ErrnoName(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	for n := range 200 {
		if name := ErrnoName(n); name != "" {
			if back, err := ParseErrno([]byte(name)); err != nil || back != n {
				t.Errorf("%s: got back %d, %v, want %d", name, back, err, n)
			}
		}
	}
}

func TestKeyString(t *testing.T) {
	var m Message
	for k := range numKeys {
		m.Parse([]byte(k.String() + "=v"))
		if v, ok := m.Value(k); !ok || string(v) != "v" {
			t.Errorf("%v is not the name of key %d", k, uint8(k))
		}
	}
	if got := numKeys.String(); got != "Key(13)" {
		t.Errorf("a key that does not exist is called %s", got)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct{ name, in string }{
		{"watchdog", "WATCHDOG=1"},
		{"ready", "READY=1\nMAINPID=4711\nSTATUS=Processing requests"},
		{"full", "STATUS=" + strings.Repeat("x", MaxDatagram-7)},
		{"lines", strings.Repeat("\nX=1", MaxDatagram/4)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			in := []byte(bb.in)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			var m Message
			for b.Loop() {
				m.Parse(in)
			}
		})
	}
}
