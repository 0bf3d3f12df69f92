package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/podnotify/podnotify/internal/lean"
)

// leakless is the tests, failing also if they leave a goroutine behind.
type leakless struct{ m *testing.M }

func (l leakless) Run() int {
	code := l.m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func TestMain(m *testing.M) {
	runtime.GOMAXPROCS(lean.Procs) // tests need not be light
	_ = flag.Set("test.parallel", strconv.Itoa(lean.Procs))
	testscript.Main(leakless{m}, map[string]func(){"podnotify": main})
}

// Each script is what one user does and sees.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
}
