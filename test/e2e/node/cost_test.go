package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/podnotify/podnotify/test/e2e/image"
)

// containers is how many a Kubernetes node has at most by default.
const containers = 110

// span is how long the processor time is counted.
const span = 20 * time.Second

// cost is what the podnotify of some containers takes.
type cost struct {
	anonymous int64         // bytes
	idle      time.Duration // of processor time a minute
	probed    time.Duration // the same, each container asked once a second
}

// BenchmarkCost compares one podnotify-node for 110 containers with 110 sidecars. It
// runs once, whatever b.N.
func BenchmarkCost(b *testing.B) {
	h := newHost(b)
	for i := range containers {
		h.plain(fmt.Sprint("c", i), []string{"expect=notify"}, nil, "/mydaemon")
	}
	paths := make([]string, containers)
	for i := range paths {
		paths[i] = fmt.Sprintf("http://%s/readyz/c%d", address, i)
		h.until(fmt.Sprintf("/readyz/c%d", i), 200)
	}
	node := h.measure([]int{h.agent.PID()}, paths)

	program := filepath.Join(h.Dir, "podnotify")
	if err := image.Build(program, "../../..", "./cmd/podnotify"); err != nil {
		b.Fatal(err)
	}
	var pids []int
	mydaemon := filepath.Join(h.Dir, "mydaemon")
	for i := range containers {
		dir := filepath.Join(h.Dir, "s", strconv.Itoa(i))
		listen, serves := fmt.Sprint("127.0.0.1:", 20000+i), fmt.Sprint("127.0.0.1:", 21000+i)
		s := exec.Command(program, "sidecar", "--service", "d", "--expect", "notify", "--run-dir", dir, "--listen", listen, "--log-level", "error",
			"--select-process", "mydaemon -l "+serves+"$")
		if _, err := h.Start(s); err != nil {
			b.Fatal(err)
		}
		pids = append(pids, s.Process.Pid)
		paths[i] = "http://" + listen + "/readyz/d"
		h.answers("http://"+listen+"/healthz", 200)
		d := exec.Command(mydaemon, "-l", serves)
		d.Env = []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "d", "notify")}
		if _, err := h.Start(d); err != nil {
			b.Fatal(err)
		}
		h.answers(paths[i], 200)
	}
	sidecars := h.measure(pids, paths)

	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d containers\tanonymous memory each\tCPU a minute, idle\tCPU a minute, each asked once a second\t\n", containers)
	for _, x := range []struct {
		name string
		cost
	}{{"podnotify-node", node}, {"sidecars", sidecars}} {
		fmt.Fprintf(w, "%s\t%d KiB\t%v\t%v\t\n", x.name, x.anonymous/containers/1024, x.idle, x.probed)
	}
	w.Flush()
	b.Log("\n" + table.String())
	b.ReportMetric(float64(node.anonymous)/containers/1024, "node-KiB/container")
	b.ReportMetric(float64(sidecars.anonymous)/containers/1024, "sidecar-KiB/container")
	b.ReportMetric(float64(node.probed.Milliseconds()), "node-ms/min")
	b.ReportMetric(float64(sidecars.probed.Milliseconds()), "sidecar-ms/min")
}

// answers waits for the answer of an URL.
func (h *host) answers(url string, want int) {
	h.Helper()
	h.eventually(url+" answers", func() bool {
		r, err := h.client.Get(url)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		return r.StatusCode == want
	})
}

// measure counts what some processes take for a while.
func (h *host) measure(pids []int, paths []string) (c cost) {
	h.Helper()
	h.ask(paths, 3*time.Second) // what the first questions take is taken
	minute := func(d time.Duration) time.Duration {
		return (d * time.Duration(time.Minute/span)).Round(time.Millisecond)
	}
	before := h.cpu(pids)
	time.Sleep(span)
	c.idle = minute(h.cpu(pids) - before)
	before = h.cpu(pids)
	h.ask(paths, span)
	c.probed = minute(h.cpu(pids) - before)
	for _, pid := range pids {
		for line := range strings.Lines(h.read(pid, "status")) {
			if f := strings.Fields(line); f[0] == "RssAnon:" {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				c.anonymous += n * 1024
			}
		}
	}
	return c
}

// ask asks every URL once a second, as kubelet does.
func (h *host) ask(urls []string, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	for i, url := range urls {
		wg.Go(func() {
			time.Sleep(time.Second * time.Duration(i) / time.Duration(len(urls)))
			for t := time.NewTicker(time.Second); ; {
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
				if err != nil {
					return
				}
				if answer, err := h.client.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
					if answer.StatusCode != 200 {
						h.Errorf("GET %s is %d", url, answer.StatusCode)
					}
				}
				select {
				case <-ctx.Done():
					t.Stop()
					return
				case <-t.C:
				}
			}
		})
	}
	wg.Wait()
}

// cpu is the processor time that processes have taken, their threads' to the nanosecond.
func (h *host) cpu(pids []int) (d time.Duration) {
	h.Helper()
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			b, err := os.ReadFile(task)
			if err != nil {
				continue
			}
			n, _ := strconv.ParseInt(strings.Fields(string(b))[0], 10, 64)
			d += time.Duration(n)
		}
	}
	return d
}

func (h *host) read(pid int, file string) string {
	h.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		h.Fatal(err)
	}
	return string(b)
}
