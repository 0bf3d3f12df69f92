package notify

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childLines, in the environment, makes the test binary a daemon that sends these lines
// to NOTIFY_SOCKET, separated by |, and ends.
const childLines = "PODNOTIFY_TEST_CHILD_LINES"

func TestMain(m *testing.M) {
	if lines, ok := os.LookupEnv(childLines); ok {
		n, err := FromEnv()
		if err == nil {
			err = n.Send(strings.Split(lines, "|")...)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patient is the bound of everything that is waited for.
const patient = 30 * time.Second

// eventually waits for a condition that nothing tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// receive waits for a value that a goroutine of the test sends.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patient):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

// descriptors counts the open descriptors of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// noLeak checks at the end of the test that it has closed all it has opened.
func noLeak(t *testing.T) {
	t.Helper()
	pipe(t) // the runtime's poller opens two for good at its first use: let that be now
	before := descriptors(t)
	t.Cleanup(func() {
		eventually(t, fmt.Sprintf("no more than %d descriptors open again", before), func() bool { return descriptors(t) <= before })
	})
}
