.DEFAULT_GOAL := help
GO ?= go

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

test: ## all tests that need nothing but Go
	$(GO) test ./...

race: ## the same tests under the race detector (needs gcc); SQLite itself is left out, which makes it 5 times faster
	GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -race -short -gcflags='github.com/ncruces/go-sqlite3-wasm/...=-race=false' ./...

vet: ## gofmt and go vet
	@out=$$(git ls-files "*.go" | xargs -r gofmt -l); test -z "$$out" || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) vet ./...

.PHONY: help test race vet
