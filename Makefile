# make run     builds podnotify and shows it on a real daemon
# make test    all tests; installs the Debian packages they need, when it may
# make test-cri  podnotify in pods that a real containerd makes; root, a minute
# make test-node  podnotify-node with a real containerd, plain containers and a pod; root, three minutes
# make e2e     the chart in a real Kubernetes, which it builds first, and test-compose-v2; root
# make test-charts  lints, renders and validates the charts and the manifests of the examples; the first time it builds for minutes
# make helm    builds the helm that the charts are tested with
# make check   what CI runs besides the tests: gofmt, vet, lint, fuzzing for a moment
# make vuln    looks up known vulnerabilities of what is linked, at vuln.go.dev
# make mutation takes each word of the protocol away: its tests must fail, and no others
# make bench   podnotify beside C, bare net/http and its peers: a quarter of an hour, the table is in docs/performance.md
# make bench-short  sees that the benchmarks work; allocations and sizes against bench/budgets.json
# make bench-node  what podnotify-node costs for 110 containers, beside 110 sidecars; root
# make image   the container image for amd64 and arm64, in dist/; needs no docker and no registry (IMAGE=podnotify-node: that of the agent)
# make test-compose  the examples for docker compose on a real engine; root, two minutes
# make test-compose-v2  the same with docker compose v2, which it builds first
# make test-image tests it, and that two builds of it are the same bytes
GO      ?= go
BIN     ?= bin
DIST    ?= dist
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
# Probes are plain HTTP/1.1. HTTP/2, which net/http has in it for TLS, would be half a
# megabyte in every pod.
TAGS     = nethttpomithttp2
# Counted, not timed: a fuzzer whose time ends while it minimizes an input fails.
FUZZTIME ?= 50000x
# Of what takes a millisecond each.
FUZZSLOW ?= 5000x

# Everything in an image is dated as its commit.
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
ARCHES   = amd64 arm64

.PHONY: build run test test-root test-cri deps check lint fuzz mutation bench bench-short update clean help

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

build:
	CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/podnotify ./cmd/podnotify-healthcheck
	CGO_ENABLED=0 $(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(BIN)/podnotify-node ./cmd/podnotify-node
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/mydaemon ./examples/mydaemon/go
	@mkdir -p $(BIN)/run/podnotify && chmod 1777 $(BIN)/run/podnotify # for the Dockerfile: it cannot make a directory

IMAGE ?= podnotify
PROGRAMS_podnotify      = ./cmd/podnotify ./cmd/podnotify-healthcheck
PROGRAMS_podnotify-node = ./cmd/podnotify-node

.PHONY: image test-image
# The bytes depend on the source, VERSION, REVISION, the date and the Go release; on nothing else.
image:
	for arch in $(ARCHES); do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOAMD64=v1 GOARM64=v8.0 GOFLAGS= $(GO) build -trimpath -buildvcs=false \
			-tags '$(TAGS)' -ldflags '$(LDFLAGS) -X main.revision=$(REVISION)' -o $(DIST)/bin/$$arch/ $(PROGRAMS_$(IMAGE)) || exit; \
	done
	cd hack/image && $(GO) run . -bin $(abspath $(DIST))/bin -license $(CURDIR)/LICENSE -notices $(CURDIR)/cmd/$(IMAGE)/THIRD_PARTY -out $(abspath $(DIST)) \
		-version '$(VERSION)' -revision '$(REVISION)' -time $(SOURCE_DATE_EPOCH) $(IMAGE)
	@ls $(DIST)/$(IMAGE)-image*.tar

test-image:
	cd hack/image && $(GO) vet ./... && $(GO) mod tidy -diff && $(GO) test ./...
	@sh hack/reproducible.sh

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

# podnotify-node with a real containerd and runc.
.PHONY: test-node bench-node
bench-node:
	@sh test/e2e/deps.sh bind9 haproxy mosquitto dash
	cd test/e2e && $(GO) test -run '^$$' -bench Cost -benchtime 1x -timeout 15m ./node

test-node:
	@sh test/e2e/deps.sh bind9 haproxy mosquitto dash
	cd test/e2e && $(GO) test -timeout 15m ./node

# Packages of Debian, Kubernetes and helm are installed or built when they are
# missing; the rest is a test. What is built stays in the cache.
.PHONY: e2e
e2e: helm
	@sh test/e2e/deps.sh dash bind9 dnsmasq-base etcd-server haproxy iptables libc-bin mosquitto redis-tools unbound
	@sh test/e2e/kubernetes/build.sh
	cd test/e2e && PODNOTIFY_TEST_ALL=1 HELM=$(HELM) $(GO) test -v -count 1 -parallel 4 -timeout 50m ./cluster
	@$(MAKE) test-compose-v2

# What is built once and kept: outside the clone, by version.
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/podnotify
HELM  = $(CACHE)/helm-v3.22.0/helm
.PHONY: test-charts helm

# A module of its own, because it links much of Kubernetes. Not from the cache: go does not see that a chart outside the module changed.
test-charts:
	$(GO) test ./charts
	cd test/charts && $(GO) vet ./... && $(GO) mod tidy -diff && $(GO) test -count 1 -timeout 20m ./...

helm: $(HELM)
	@echo $(HELM)

# What helm template and helm lint take the cluster for, when there is none.
HELM_LDFLAGS  = -s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0
HELM_LDFLAGS += $(foreach p,chartutil lint/rules,$(foreach v,Major=1 Minor=34,-X helm.sh/helm/v3/pkg/$(p).k8sVersion$(v)))

$(HELM):
	cd test/charts && $(GO) build -o $@ -ldflags '$(HELM_LDFLAGS)' helm.sh/helm/v3/cmd/helm

.PHONY: test-compose test-compose-v2
test-compose:
	@sh test/e2e/deps.sh docker.io docker-compose procps
	cd test/e2e && $(GO) vet ./docker ./compose && $(GO) test -count 1 -timeout 15m ./compose

test-compose-v2:
	@sh test/e2e/deps.sh docker.io procps
	cd test/e2e && PODNOTIFY_TEST_ALL=1 PODNOTIFY_TEST_COMPOSE=$$(sh compose/v2/build.sh) $(GO) test -count 1 -timeout 15m ./compose

lint:
	@sh hack/lint.sh

fuzz:
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./notify
	$(GO) test -run '^$$' -fuzz '^FuzzMachine$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./sidecar/lifecycle
	$(GO) test -run '^$$' -fuzz '^FuzzJournal$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./internal/journal
	$(GO) test -run '^$$' -fuzz '^FuzzAnswer$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./internal/ask
	$(GO) test -run '^$$' -fuzz '^FuzzImport$$' -fuzztime $(FUZZTIME) -fuzzminimizetime 1x ./internal/initfile
	$(GO) test -run '^$$' -fuzz '^FuzzLoad$$' -fuzztime $(FUZZSLOW) -fuzzminimizetime 1x ./internal/config
	$(GO) test -run '^$$' -fuzz '^FuzzRequests$$' -fuzztime $(FUZZSLOW) -fuzzminimizetime 1x ./internal/control

.PHONY: vuln
# Not part of .ci/run: what it finds depends on the day, and it asks a server. Of what
# it finds in the standard library the cure is a newer Go release.
vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 $(VULNFLAGS) ./...

check: lint fuzz
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

mutation:
	$(GO) run ./hack/mutation

bench:
	@mkdir -p $(BIN)
	$(GO) run ./bench -write docs/performance.md -json $(BIN)/bench.json
	@[ "$$(id -u)" != 0 ] || $(MAKE) bench-node

bench-short:
	$(GO) run ./bench -short

# Modules by name: versions of heptiolabs/healthcheck cannot be listed, so
# "go get -u ./..." fails.
update:
	$(GO) get golang.org/x/sys@latest golang.org/x/sync@latest github.com/spf13/viper@latest github.com/spf13/cobra@latest \
		github.com/prometheus/client_golang@latest github.com/rogpeppe/go-internal@latest pgregory.net/rapid@latest github.com/google/go-cmp@latest
	$(GO) mod tidy

clean:
	rm -rf $(BIN) $(DIST)
