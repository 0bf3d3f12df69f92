package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const groupSize = "Binaries, stripped"

// sizes weighs the binaries as they are shipped.
func sizes(b *bench) error {
	for _, s := range []struct {
		name       string
		plain, zip float64
		ref        string
	}{
		{"podnotify", 11, 4.4, "nethttp"},
		{"podnotify-healthcheck", 2.2, missing, "dial"},
		{"podnotify-node", missing, missing, ""},
	} {
		if !exists(filepath.Join(b.bin, s.name))() {
			continue
		}
		plain, zip, err := weighFile(filepath.Join(b.bin, s.name))
		if err != nil {
			return err
		}
		refPlain, refZip := missing, missing
		if s.ref != "" {
			if refPlain, refZip, err = weighFile(filepath.Join(b.bin, s.ref)); err != nil {
				return err
			}
		}
		b.table.add(groupSize,
			row{what: s.name, unit: "MB", ours: plain, ref: refPlain, target: atMost(s.plain), key: s.name + " MB", note: "reference: " + s.ref},
			row{what: s.name + ", gzip -9", unit: "MB", ours: zip, ref: refZip, target: atMost(s.zip), key: s.name + " gzip MB"})
	}
	return nil
}

// weighFile returns the size of a file in MB (10^6 bytes), and of what gzip -9 makes of it.
func weighFile(path string) (plain, zip float64, err error) {
	in, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return 0, 0, err
	}
	n, err := io.Copy(z, in)
	if err != nil {
		return 0, 0, err
	}
	if err := z.Close(); err != nil {
		return 0, 0, err
	}
	return float64(n) / 1e6, float64(out.Len()) / 1e6, nil
}

// benchmarks are the Go benchmarks beside the code whose allocations count.
var benchmarks = []struct {
	room, name string
	most       float64 // the contract's
}{
	{"./notify", "BenchmarkParse", 0},
	{"./notify", "BenchmarkDrain", 0},
	{"./sidecar/lifecycle", "BenchmarkApply", 0},
	{"./sidecar", "BenchmarkPacket", 0},
	{"./sidecar", "BenchmarkLook", missing},
	{"./probes", "BenchmarkReady", 0},
	{"./probes", "BenchmarkNotReady", missing},
}

var benchmarkLine = regexp.MustCompile(`^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op.*?\s(\d+) allocs/op`)

// allocations runs the Go benchmarks and counts what a datagram and a probe allocate.
func allocations(b *bench) error {
	rooms := map[string]bool{}
	for _, m := range benchmarks {
		if rooms[m.room] {
			continue
		}
		rooms[m.room] = true
		out, err := exec.Command("go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", strconv.Itoa(b.of(20000, 200))+"x", m.room).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cannot run the benchmarks of %s: %w\n%s", m.room, err, out)
		}
		found := false
		for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
			f := benchmarkLine.FindStringSubmatch(s.Text())
			if f == nil {
				continue
			}
			for _, w := range benchmarks {
				if w.room != m.room || f[1] != w.name && !strings.HasPrefix(f[1], w.name+"/") {
					continue
				}
				found = true
				ns, _ := strconv.ParseFloat(f[2], 64)
				n, _ := strconv.ParseFloat(f[3], 64)
				name := strings.TrimPrefix(f[1], "Benchmark")
				b.table.add("Allocations", row{what: m.room + " " + name, unit: "allocations", ours: n, ref: missing, target: atMost(w.most),
					note: figure(ns) + " ns", key: "allocations of " + m.room + " " + name})
			}
		}
		if !found {
			return fmt.Errorf("cannot find benchmarks in %s", m.room)
		}
	}
	return nil
}
