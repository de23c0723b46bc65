# envfs: build, test and measure. `make help` lists the targets.

GO        ?= go
PREFIX    ?= /usr/local
SBIN      ?= /sbin
BIN       ?= bin
FUZZTIME  ?= 30s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED ?= 1

# What ENVFS_SOAK makes longer, in the packages that a run below names.
SOAK      ?= 1
SOAKED    = TestEveryCallStruck|TestDiskStaysBroken|TestExercise|TestMirror|TestKilledUnderLoad|TestFilledAgainAndAgain|TestStress|TestRsyncDelta

# To join words by commas.
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: help build install test test-setup soak lint bench bench-disk bench-vault bench-scale bench-go bench-soak fuzz demo man clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/envfs
	CGO_ENABLED=0 $(GO) build -buildvcs=auto -trimpath -ldflags "-s -w" -o $(BIN)/envfs ./cmd/envfs

man: build ## write the man pages to bin/man
	rm -rf $(BIN)/man && $(BIN)/envfs man $(BIN)/man

install: build man ## install the program, mount.envfs, man pages, completions and unit templates
	install -D -m 755 $(BIN)/envfs $(DESTDIR)$(PREFIX)/bin/envfs
	install -d $(DESTDIR)$(SBIN) && ln -sf $(PREFIX)/bin/envfs $(DESTDIR)$(SBIN)/mount.envfs
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 && install -m 644 $(BIN)/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/bin/envfs|$(PREFIX)/bin/envfs|' contrib/systemd/envfs@.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/envfs@.service
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(BIN)/envfs completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/envfs
	$(BIN)/envfs completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_envfs
	$(BIN)/envfs completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/envfs.fish

test-setup:
	@integration/setup.sh
	@echo 'building the Vault server that the tests run, unless it is built already (about 4 minutes once)'
	@$(GO) test -timeout 40m -run TestServerLifecycle ./keyring/vault/vaulttest

test: test-setup ## everything: unit, race, FUSE, Vault and real programs
	ENVFS_TEST_STRICT=$$(integration/setup.sh --strict) $(GO) test -race -timeout 20m ./...
	@echo 'and without the race detector what it is too slow for, or would change:'
	$(GO) test -timeout 20m ./crypto ./internal/secret
	$(GO) test -timeout 20m -run TestFewAllocations ./volume

soak: test-setup ## the long forms of power cuts, faults, exercise, crashes, full disk and stress, then fuzzing: a night (SOAK=2: two)
	ENVFS_POWERCUTS=$$((60 * $(SOAK))) $(GO) test -timeout $$((3 * $(SOAK)))h -v -run 'PowerCuts' ./internal/backing/powercut ./volume ./fs
	ENVFS_SOAK=$(SOAK) ENVFS_TEST_STRICT=$$(integration/setup.sh --strict) \
	  $(GO) test -race -v -p 1 -timeout $$((9 * $(SOAK)))h -run '^($(SOAKED))$$' ./volume ./fs ./integration
	$(MAKE) fuzz FUZZTIME=$$((10 * $(SOAK)))m

lint: ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'not gofmt-ed'; exit 1; }
	$(GO) vet ./...
	cd integration/vaultserver && $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

bench: build ## the table of envfs beside its peers, ciphertext on tmpfs (as root; installs the peers)
	integration/bench.sh

bench-disk: build ## the same on a disk
	integration/bench.sh -base /var/tmp/envfs-bench native envfs gocryptfs securefs encfs

bench-vault: build ## what the distance to Vault costs, at 0, 10 and 50 ms
	integration/bench.sh vault

bench-scale: build ## one, two, four and eight writers and readers, on files of their own and on one
	integration/bench.sh -rows $(subst $(space),$(comma),$(foreach n,1 2 4 8,write_files_by_$(n) write_file_by_$(n))) native envfs gocryptfs securefs

bench-go: ## Go benchmarks of the block path, the header codec, names and keyrings
	$(GO) test -run '^$$' -bench . -benchmem ./crypto/... ./volume/... ./keyring/...

bench-soak: ## a million files made and removed: the daemon must hold no more than before
	ENVFS_SOAK_FILES=1000000 $(GO) test -count 1 -v -timeout 6h -run '^TestNothingRetained$$' ./fs

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

demo: build ## a volume, mounted, filled, compared, shown, mounted again; leaves nothing behind
	@integration/demo.sh $(BIN)/envfs

clean: ## remove what was built
	rm -rf bin
