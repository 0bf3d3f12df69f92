// Bench measures podnotify beside the least that can do the same: small C programs, a
// bare net/http server, a Go program that sleeps. Both sides run in turns in one run, in
// a PID namespace of their own, and what counts is the ratio.
//
//	go run ./bench                  everything, a quarter of an hour
//	go run ./bench -only ready,idle some of it
//	go run ./bench -short           does every driver work; allocations and sizes against budgets.json
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// part is one thing that is measured.
type part struct {
	name string
	run  func(*bench) error
}

var parts = []part{
	{"sizes", sizes},
	{"allocations", allocations},
	{"datagrams", datagrams},
	{"ready", ready},
	{"stop", stopRun},
	{"sampled", stopSidecar},
	{"memory", memory},
	{"start", startup},
	{"healthcheck", healthcheck},
	{"processes", processes},
	{"services", services},
	{"flood", flooded},
	{"slow", slow},
	{"idle", idle},
}

// bench is one run.
type bench struct {
	short bool
	bin   string // what was built
	dir   string // of this run, in memory
	table table
	port  int
}

func main() {
	short := flag.Bool("short", false, "see only that everything works, and compare allocations and sizes with budgets.json")
	only := flag.String("only", "", "what to measure, with commas between: "+names())
	jsonFile := flag.String("json", "", "write the table to this `FILE` as JSON, too")
	docFile := flag.String("write", "", "replace the table in this `FILE`")
	flag.Parse()
	if !private() {
		os.Exit(inPrivate())
	}
	if err := run(*short, *only, *jsonFile, *docFile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func names() string {
	var out []string
	for _, p := range parts {
		out = append(out, p.name)
	}
	return strings.Join(out, ",")
}

func run(short bool, only, jsonFile, docFile string) error {
	chosen := parts
	if only != "" {
		chosen = nil
		for name := range strings.SplitSeq(only, ",") {
			i := slices.IndexFunc(parts, func(p part) bool { return p.name == name })
			if i < 0 {
				return fmt.Errorf("cannot measure %q: there are %s", name, names())
			}
			chosen = append(chosen, parts[i])
		}
	}
	dir, err := memoryDir()
	if err != nil {
		return err
	}
	b := &bench{short: short, dir: dir, bin: filepath.Join(dir, "bin"), port: 19300}
	b.table.machine = machine()
	if err := b.build(); err != nil {
		return err
	}
	var failed error
	for _, p := range chosen {
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "== %s\n", p.name)
		if err := p.run(b); err != nil { // the rest is worth having
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
			fmt.Fprintln(os.Stderr, "bench:", p.name+":", err)
		}
		fmt.Fprintf(os.Stderr, "   %.0f s\n", time.Since(begin).Seconds())
	}
	fmt.Print(b.table.text())
	if docFile != "" {
		if err := b.table.writeTo(docFile); err != nil {
			return err
		}
	}
	if jsonFile != "" {
		if err := b.table.writeJSON(jsonFile); err != nil {
			return err
		}
	}
	if short {
		failed = errors.Join(failed, b.table.withinBudgets("bench/budgets.json"))
	}
	return failed
}

// build makes the C programs, the Go references and the product, as they are shipped.
func (b *bench) build() error {
	if err := os.MkdirAll(b.bin, 0o755); err != nil {
		return err
	}
	sources, err := filepath.Glob("bench/c/*.c")
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("cannot find bench/c: run this in the top directory")
	}
	for _, s := range sources {
		if err := command("cc", "-O2", "-Wall", "-o", filepath.Join(b.bin, strings.TrimSuffix(filepath.Base(s), ".c")), s); err != nil {
			return err
		}
	}
	mains, err := filepath.Glob("bench/ref/*/main.go")
	if err != nil {
		return err
	}
	product, err := filepath.Glob("cmd/podnotify*/main.go")
	if err != nil {
		return err
	}
	for _, m := range append(mains, product...) {
		dir := filepath.Dir(m)
		args := []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(b.bin, filepath.Base(dir)), "./" + dir}
		if strings.HasPrefix(dir, "cmd") {
			args = slices.Insert(args, 1, "-tags", "nethttpomithttp2") // as the Makefile has it
		}
		if err := command("go", args...); err != nil {
			return err
		}
	}
	return nil
}

// command runs a build step.
func command(name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+os.Getenv("GOFLAGS")+" -buildvcs=false")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// of picks a count for a whole run or a short one.
func (b *bench) of(whole, short int) int {
	if b.short {
		return short
	}
	return whole
}
