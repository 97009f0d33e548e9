.DEFAULT_GOAL := help
GO ?= go
LINT := golangci-lint
LINT_VERSION := v2.15.0

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## bin/unstuck
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -o bin/unstuck ./cmd/unstuck

run: build ## build, and start a server for development with a first key
	@exec bin/unstuck serve --dev --print-first-key

test: ## all tests that need nothing but Go (PostgreSQL joins in when it is installed)
	$(GO) test ./...

race: ## the same tests under the race detector (needs gcc); SQLite itself is left out, which makes it 5 times faster
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -short -gcflags='github.com/ncruces/go-sqlite3-wasm/...=-race=false' -timeout 30m ./...

vet: ## gofmt, go mod tidy, and go vet for every system that we release for
	@out=$$(git ls-files "*.go" | xargs -r gofmt -l); test -z "$$out" || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	GOOS=windows $(GO) vet ./...
	GOOS=darwin $(GO) vet ./...

lint: ## golangci-lint, installed on first use
	@command -v $(LINT) >/dev/null || test -x "$$($(GO) env GOPATH)/bin/$(LINT)" || $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	PATH="$$PATH:$$($(GO) env GOPATH)/bin" $(LINT) run ./...

gen: ## write the generated pages again (docs/openapi.json, permissions.md, cli.md, settings.md, help/errors.md, and the help as HTML)
	$(GO) test ./internal/cli -run TestGenerated -count=1 -args -write

tz: ## take the time zone database of this Go: internal/cron/zoneinfo.zip and its version
	$(GO) generate ./internal/cron

fuzz: ## fuzz parsers for half a minute each
	$(GO) test ./internal/op -run '^$$' -fuzz FuzzParse -fuzztime 30s
	$(GO) test ./internal/cron -run '^$$' -fuzz FuzzParse -fuzztime 30s
	$(GO) test ./internal/webhook -run '^$$' -fuzz FuzzBody -fuzztime 30s
	$(GO) test ./internal/webhook -run '^$$' -fuzz FuzzCheckURL -fuzztime 30s
	$(GO) test ./internal/access -run '^$$' -fuzz FuzzParseSecret -fuzztime 30s

openapi: build ## hold the running server against its OpenAPI document: two validators and schemathesis (needs npm and python3)
	./test/openapi-server

interop: build ## published CueAPI clients and nginx against the built binary (needs python3 and nginx)
	./test/interop/run

dist: ## what is released, in dist/: archives for Linux, macOS and Windows, bills of materials, checksums
	$(GO) run ./deploy/dist -sbom "$$(test/sbom-tool)"

dist-check: ## what make dist makes, for this system: twice, to the same bytes, and the bill of materials is valid (needs python3)
	test/dist -targets host -sbom "$$(test/sbom-tool)"

image: ## the root file system of the container image, by the steps of the Dockerfile, and a server in it that has nothing else (needs root and buildah)
	test/image

bench: ## the figures of docs/performance.md, on SQLite and, when installed, PostgreSQL
	./bench/run

bench-smoke: ## every benchmark once, with little to do: whether they work, not how fast they are
	$(GO) test ./internal/... ./bench -short -run '^$$' -bench . -benchtime 1x

crash: build ## kill -9 and power cuts in a loop, while writing
	UNSTUCK_LONG=1 $(GO) test ./test -run 'TestCrash|TestPower' -count=1 -v -timeout 20m

SIM_HOURS := 1000
simulate: ## the scheduler in 1,000 hours of virtual time, with outages, crashes, slow callbacks and dying workers
	$(GO) test ./internal/cue -run TestSimulation -count=1 -v -timeout 60m -args -sim.hours $(SIM_HOURS)

verify: SIM_HOURS := 10000
verify: test crash fuzz simulate ## everything, long
	UNSTUCK_LONG=1 $(GO) test ./... -timeout 60m

.PHONY: help build run test race vet lint gen tz fuzz openapi interop dist dist-check image bench bench-smoke crash simulate verify
