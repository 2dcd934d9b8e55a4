# Duet. `make` lists the targets.
GO    ?= go
TAGS  := -tags libvirt_dlopen
CACHE ?= $(CURDIR)/.cache
BIN   := bin
comma := ,

.PHONY: help deps build install test fast scenario demo bench field campaign campaign-real fuzz windows lint clean

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

deps: ## Install the Debian packages that are missing.
	@testbed/deps/install.sh

build: deps ## Build duet and duetd into bin/.
	@mkdir -p $(BIN)
	$(GO) build $(TAGS) -o $(BIN)/ ./cmd/duet ./cmd/duetd

install: build ## Install both programs, the systemd units and shell completion on this host.
	install -m 755 $(BIN)/duet $(BIN)/duetd /usr/local/sbin/
	install -m 644 docs/duetd.service docs/duetd-witness.service /etc/systemd/system/
	$(BIN)/duet completion bash >/etc/bash_completion.d/duet

demo: build ## Show the main job on this computer: two hosts, two VMs, one host killed, nothing lost. KEEP=1 leaves it up.
	@$(GO) build -o $(BIN)/demo ./testbed/demo
	@$(BIN)/demo -bin $(BIN) -cache $(CACHE) $(if $(KEEP),-keep)

test: deps lint windows ## Run every test: units, suites, real tools, short scenarios with real VMs.
	$(GO) test $(TAGS) -timeout 20m -p 1 -count 1 ./...

fast: ## Run the tests that need neither root nor VMs, with the race detector.
	$(GO) test $(TAGS) -race -short $$($(GO) list $(TAGS) ./... | grep -v /testbed/)

scenario: deps ## Run the scenarios with real VMs, one after the other, showing each step.
	$(GO) test $(TAGS) -timeout 30m -count 1 -v ./testbed/scenario

field: deps ## Follow the README on real machines: pairs of Debian 12, of 13 and of both (PAIRS=12/13 for one of them).
	$(GO) test $(TAGS) -timeout 30m -count 1 -v ./testbed/machine/field -pairs $(or $(PAIRS),12/12$(comma)13/13$(comma)12/13)

bench: build ## Measure beside QEMU's own mirror and qemu-nbd on this computer; nothing else may run.
	$(GO) run $(TAGS) ./testbed/bench

campaign: ## Try N random schedules of faults on simulated clusters (N=100000, SEED=1), then 5000 on the byte path.
	$(GO) run ./testbed/campaign -n $(or $(N),100000) -first $(or $(SEED),1)
	$(GO) test -timeout 30m -count 1 ./blockrepl -run TestCrashes -sim.count 5000

campaign-real: deps ## Try 200 random schedules of faults on real daemons and VMs (SEED=1); about 45 minutes.
	$(GO) test $(TAGS) -timeout 90m -count 1 -v ./testbed/scenario -run TestChaos -schedules 200 -seed $(or $(SEED),1)

fuzz: ## Fuzz every decoder for a while (FUZZTIME=30s each).
	@testbed/fuzz.sh $(or $(FUZZTIME),30s)

windows: ## Build and vet what is not tied to Linux for windows/amd64.
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) vet $$(testbed/portable.sh)

lint: ## Check formatting and vet.
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet $(TAGS) ./...

clean: ## Remove what was built; the cache of the test VM stays.
	rm -rf $(BIN)
