package notify_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/podnotify/podnotify/notify"
)

// A daemon that says how it is. Without NOTIFY_SOCKET nothing is sent and nothing fails.
func ExampleFromEnv() {
	n, err := notify.FromEnv()
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	// Bind, load, connect; then:
	if err := n.Ready("Serving on :8080"); err != nil {
		log.Print(err)
	}
	// Serve until told to end; then:
	if err := n.Stopping(); err != nil {
		log.Print(err)
	}
	// Output:
}

func ExampleMessage() {
	var m notify.Message
	if err := m.Parse([]byte("STATUS=Loading 3/7\nREADY=1\nX_TEAM=storage\n")); err != nil {
		log.Fatal(err)
	}
	status, _ := m.Value(notify.KeyStatus)
	fmt.Println("ready:", m.Has(notify.FlagReady))
	fmt.Printf("status: %s\n", status)
	for name := range m.UnknownKeys() {
		fmt.Printf("unknown: %s\n", name)
	}
	// Output:
	// ready: true
	// status: Loading 3/7
	// unknown: X_TEAM
}

// printer prints what daemons say.
type printer struct{}

func (printer) Packet(p *notify.Packet) {
	if p.Message.Has(notify.FlagReady) {
		fmt.Println("ready, by this process:", p.From.PID == os.Getpid())
	}
	if p.Message.BarrierOnly() {
		fmt.Println("barrier") // answered when this function returns
	}
}

func (printer) Dropped(d notify.Drop, from notify.Sender) {
	fmt.Println("dropped:", d)
}

// A service manager that prints what daemons say, and a daemon that waits until it has.
func ExampleListener() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := notify.Listen(notify.Config{Address: filepath.Join(dir, "notify")})
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for l.Wait(context.Background()) == nil {
			if _, _, err := l.Drain(printer{}, 64); err != nil {
				return
			}
		}
	}()

	// A daemon finds the address in its environment, where NOTIFY_SOCKET is l.Env().
	n, err := notify.NewNotifier(l.Env())
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(""); err != nil {
		log.Fatal(err)
	}
	if err := n.Barrier(context.Background()); err != nil {
		log.Fatal(err)
	}
	l.Close()
	<-ended
	// Output:
	// ready, by this process: true
	// barrier
}
