# Edgefleet. `make run` needs Go >= 1.26, make, git and a C compiler; nothing else.
SHELL := /bin/bash
BIN := bin
CONSUL := .tools/consul
H2SPEC := .tools/h2spec
COMMANDS := controlplane fleetctl edgenode edgesupervisor devfleet loadtest
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
MODULE := github.com/edgefleet/edgefleet
LDFLAGS := -X $(MODULE)/observability.Version=$(VERSION) -X $(MODULE)/controlplane/cmd/fleetctl/cli.version=$(VERSION)
PKG_controlplane := ./controlplane/cmd/controlplane
PKG_fleetctl := ./controlplane/cmd/fleetctl
PKG_edgenode := ./edgenode/cmd/edgenode
PKG_edgesupervisor := ./edgenode/cmd/edgesupervisor
PKG_devfleet := ./deploy/cmd/devfleet
PKG_loadtest := ./loadtest/cmd/loadtest

# Packages are tested one after another (-p 1): some run whole fleets, with the real timers of Raft.
.DEFAULT_GOAL := help
.PHONY: help run build check test race fault fuzz bench load etcdbench generate tidy clean consul peers $(COMMANDS)

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: build ## start a whole fleet on this machine, play the story, leave it running
	$(BIN)/devfleet up

build: $(COMMANDS) $(BIN)/pebble ## build every binary into bin/

$(COMMANDS):
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/$@ $(PKG_$@)

$(BIN)/pebble: go.mod
	@mkdir -p $(BIN)
	go build -trimpath -o $@ github.com/letsencrypt/pebble/v2/cmd/pebble

$(CONSUL): tools/consul/go.mod
	cd tools/consul && GOFLAGS=-mod=readonly go build -trimpath -o ../../$@ github.com/hashicorp/consul

$(H2SPEC): tools/h2spec/go.mod
	cd tools/h2spec && GOFLAGS=-mod=readonly go build -trimpath -o ../../$@ github.com/summerwind/h2spec/cmd/h2spec

consul: $(CONSUL) ## build the Consul server that some tests run against: 3 minutes, once

PEERS := bind9 bind9-dnsutils nsd dnsperf testssl.sh slowhttptest postgresql
peers: $(H2SPEC) ## install what some tests run against or with: name servers, testers of TLS and HTTP, PostgreSQL (Debian, as root)
	apt-get install -y --no-install-recommends $(PEERS) || { apt-get update && apt-get install -y --no-install-recommends $(PEERS); }

test: build ## run every test
	@$(MAKE) -s $(CONSUL) || echo "make: no Consul server could be built: the tests that need one are skipped"
	go test -p 1 -timeout 20m ./...

# The runs of whole fleets differ in what they look at more than in the code that runs: those that play the most are repeated.
RACE_FLEETS := TestStory|TestEveryCommandOfTheRunbook|TestTrafficDoesNotNotice
race: build ## run the tests under the race detector: every package, and whole fleets' most eventful runs
	go test -race -p 1 -timeout 30m $$(go list ./... | grep -v -e /deploy/e2e$$ -e /loadtest/cmd/loadtest$$)
	go test -race -timeout 20m -run '$(RACE_FLEETS)' ./deploy/e2e

SEEDS ?= 200
SEED ?= 1
PROCESSES ?= 12
fault: ## break control planes: SEEDS=200 seeded histories and damages, PROCESSES=12 of real processes, from SEED=1 on
	go test ./controlplane/faulttest -timeout $$((30 + $(PROCESSES) / 4))m -seeds $(SEEDS) -damages $(SEEDS) -processes $(PROCESSES) -seed $(SEED)

check: ## vet and lint (the tests look for drift in generated files)
	go vet ./...
	cd tools/lint && go build -o ../../.tools/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	GOLANGCI_LINT_CACHE=$(CURDIR)/.tools/lint .tools/golangci-lint run --allow-parallel-runners ./...

fuzz: ## fuzz every decoder of untrusted bytes for 20 s each
	@go list ./... | while read -r p; do for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz); do \
		echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime 20s $$p || exit 1; done; done

bench: ## run every benchmark once
	go test -run '^$$' -bench . -benchtime 1s ./...

SCENARIO ?= controlplane
load: build etcdbench ## run a load scenario beside its peers: SCENARIO=controlplane or hosts; RESULTS=FILE keeps the report
	$(BIN)/loadtest run $(SCENARIO) $(if $(RESULTS),--out $(RESULTS))

etcdbench:
	@mkdir -p $(BIN)
	cd tools/etcdbench && go build -trimpath -o $(CURDIR)/$(BIN)/$@ .

generate: ## regenerate committed files (OpenAPI, configuration reference)
	go generate ./...

tidy: ## tidy go.mod and format
	go mod tidy
	gofmt -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf $(BIN) .tools .devfleet
