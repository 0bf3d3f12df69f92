# make run     builds podnotify and shows it on a real daemon
# make test    all tests; installs the Debian packages they need, when it may
# make test-cri  podnotify in pods that a real containerd makes; root, a minute
# make check   what CI runs besides the tests: gofmt, vet, lint, fuzzing for a moment
# make mutation takes each word of the protocol away: its tests must fail, and no others
# make bench   benchmarks
GO      ?= go
BIN     ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
# Counted, not timed: a fuzzer whose time ends while it minimizes an input fails.
FUZZTIME ?= 50000x

.PHONY: build run test test-root test-cri deps check lint fuzz mutation bench update clean help

help:
	@sed -n 's/^# //p' Makefile

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/podnotify ./cmd/podnotify-healthcheck
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/mydaemon ./examples/mydaemon/go

run: build
	@sh hack/run.sh $(BIN)

deps:
	@sh hack/deps.sh

# PODNOTIFY_TEST_ALL turns a skipped test into a failed one.
test: deps
	$(GO) vet ./...
	$(GO) test -race -timeout 20m ./...

# A module of its own: what it imports stays out of podnotify's list.
test-cri:
	@sh test/e2e/deps.sh
	cd test/e2e && $(GO) vet ./... && $(GO) mod tidy -diff && $(GO) test -timeout 15m ./machine ./pod

lint:
	@sh hack/lint.sh

fuzz:
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./notify
	$(GO) test -run '^$$' -fuzz '^FuzzMachine$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./sidecar/lifecycle
	$(GO) test -run '^$$' -fuzz '^FuzzAnswer$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./internal/ask
	$(GO) test -run '^$$' -fuzz '^FuzzImport$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./internal/initfile

check: lint fuzz
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

mutation:
	$(GO) run ./hack/mutation

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Modules by name: versions of heptiolabs/healthcheck cannot be listed, so
# "go get -u ./..." fails.
update:
	$(GO) get golang.org/x/sys@latest golang.org/x/sync@latest github.com/spf13/viper@latest github.com/spf13/cobra@latest \
		github.com/prometheus/client_golang@latest github.com/rogpeppe/go-internal@latest pgregory.net/rapid@latest github.com/google/go-cmp@latest
	$(GO) mod tidy

clean:
	rm -rf $(BIN)
