# Duet. `make` lists the targets.
GO    ?= go
TAGS  := -tags libvirt_dlopen
CACHE ?= $(CURDIR)/.cache
BIN   := bin

# What is built: its version (`cmd/packaging/version.sh` prints it), and the packages that make packages makes.
VERSION ?= $(shell cmd/packaging/version.sh)
ARCHES  ?= amd64 arm64
FORMATS ?= deb rpm
DIST    ?= dist
PREFIX  ?= /usr/local

# The Debian releases of the two hosts of each run of make field: containers, and emulated machines.
PAIRS    ?= 12/12,13/13,12/13
EMULATED ?= 12/12,12/13

.PHONY: help deps build install packages release test fast scenario demo bench field campaign campaign-bytes campaign-disks known-bugs campaign-real fuzz windows lint clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

deps: ## Install the Debian packages that are missing.
	@testbed/deps/install.sh

build: deps ## Build duet and duetd into bin/.
	@mkdir -p $(BIN)
	$(GO) build $(TAGS) -ldflags '-X duet/cmd/version.stamp=$(VERSION)' -o $(BIN)/ ./cmd/duet ./cmd/duetd

install: build ## Install programs, systemd units and completion below PREFIX (/usr/local). Packages are better.
	install -D -m 755 $(BIN)/duet $(DESTDIR)$(PREFIX)/bin/duet
	install -D -m 755 $(BIN)/duetd $(DESTDIR)$(PREFIX)/sbin/duetd
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for unit in duetd duet-guard duet-apps duetd-witness; do \
		sed 's,@SBIN@,$(PREFIX)/sbin,; s,@OPTS@,/etc/default/duetd,' cmd/packaging/units/$$unit.service.in \
			>$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service; \
	done
	$(BIN)/duet completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/duet

packages: deps ## Build .deb and .rpm for amd64 and arm64 into dist/ (VERSION=, ARCHES=amd64, FORMATS=deb, DIST=).
	@$(if $(filter arm64,$(ARCHES)),testbed/deps/install.sh cross.txt)
	@cmd/packaging/build.sh '$(VERSION)' '$(DIST)' '$(ARCHES)' '$(FORMATS)'

release: deps ## Build packages, tar.gz, bills of materials and sums from scratch, twice, and compare and check them.
	@testbed/deps/install.sh cross.txt
	@testbed/deps/install.sh release.txt
	@rm -rf '$(DIST)'
	@RELEASE=1 cmd/packaging/build.sh '$(VERSION)' '$(DIST)' '$(ARCHES)' '$(FORMATS)'
	$(GO) test $(TAGS) -timeout 60m -count 1 -v ./cmd/packaging -release $(abspath $(DIST))

demo: build ## Show the main job on this computer: two hosts, two VMs, one host killed, nothing lost. KEEP=1 leaves it up.
	@$(GO) build -o $(BIN)/demo ./testbed/demo
	@$(BIN)/demo -bin $(BIN) -cache $(CACHE) $(if $(KEEP),-keep)

test: deps lint windows ## Run every test: units, suites, real tools, short scenarios with real VMs.
	$(GO) test $(TAGS) -timeout 40m -p 2 -count 1 $$($(GO) list $(TAGS) ./... | grep -v /testbed)
	$(GO) test $(TAGS) -timeout 40m -p 1 -count 1 ./testbed/... # what measures has the computer for itself

fast: ## Run the tests that need neither root nor VMs, with the race detector.
	$(GO) test $(TAGS) -race -short $$($(GO) list $(TAGS) ./... | grep -v /testbed/)

scenario: deps ## Run the scenarios with real VMs, one after the other, showing each step.
	$(GO) test $(TAGS) -timeout 30m -count 1 -v ./testbed/scenario

field: deps ## Follow the README on Debian machines (PAIRS=12/13, EMULATED=12/13: the releases), with Debian's own kernels too.
	$(GO) test $(TAGS) -timeout 30m -count 1 -v ./testbed/machine/field -pairs $(PAIRS)
	$(GO) test $(TAGS) -timeout 240m -count 1 -v ./testbed/machine/field -run TestField -kind emulated -pairs $(EMULATED)
	$(GO) test $(TAGS) -timeout 45m -count 1 -v ./testbed/machine -run TestEmulated -emulated

bench: build ## Measure beside QEMU's own mirror and qemu-nbd on this computer; nothing else may run.
	$(GO) run $(TAGS) ./testbed/bench

campaign: ## Try N random schedules of faults on simulated clusters (N=100000, SEED=1), then 5000 on the byte path.
	$(GO) run ./testbed/campaign -n $(or $(N),100000) -first $(or $(SEED),1)
	$(GO) test -timeout 30m -count 1 ./blockrepl -run TestCrashes -sim.count 5000

campaign-bytes: ## Try N random schedules (N=100000, SEED=1) with the real byte path, on a virtual clock; about an hour.
	$(GO) test -timeout 0 -count 1 ./testbed/sim -run 'TestCampaign$$' -campaign production -schedules $(or $(N),100000) -seed $(or $(SEED),1)

campaign-disks: ## Try N random schedules (N=100000, SEED=1) of disks that fail, on the model and on the real byte path.
	$(GO) test -timeout 0 -count 1 ./testbed/sim -run 'TestCampaign$$' -campaign disks-model -schedules $(or $(N),100000) -seed $(or $(SEED),1)
	$(GO) test -timeout 0 -count 1 ./testbed/sim -run 'TestCampaign$$' -campaign disks-production -schedules $(or $(N),100000) -seed $(or $(SEED),1)

known-bugs: ## Put known bugs back, one after the other, and have the simulators find them again (ONLY=name,name).
	$(GO) run ./testbed/knownbugs $(if $(ONLY),-only '$(ONLY)')

campaign-real: deps ## Try N random schedules of faults (N=300, SEED=1) on three pairs of real daemons and VMs; half an hour.
	$(GO) test $(TAGS) -timeout 0 -count 1 -v ./testbed/scenario -run TestChaos -pairs 3 -schedules $(or $(N),300) -seed $(or $(SEED),1)

fuzz: ## Fuzz every decoder for a while (FUZZTIME=30s each).
	@testbed/fuzz.sh $(or $(FUZZTIME),30s)

windows: ## Build and vet what is not tied to Linux for windows/amd64.
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet $$(testbed/portable.sh)

lint: ## Check formatting and vet.
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet $(TAGS) ./...
	$(GO) vet -tags man ./cmd/duet

clean: ## Remove what was built; the cache of the test VM stays.
	rm -rf $(BIN) $(DIST)
