#!/bin/sh
# Builds what is given to people into dist/: static programs for linux, deb and rpm packages, Python wheels, an SBOM of each program, and checksums.
# usage: build.sh [VERSION]      FORMATS, ARCHES and SYSTEMS say what of it (deb rpm wheel; amd64 arm64; linux darwin), DIST where
# The wheels for macOS are built, and untried: nothing here runs it.
set -eu
cd "$(dirname "$0")/.."
VERSION=${1:-$(git describe --tags 2>/dev/null || echo "0.0.0+g$(git rev-parse --short HEAD)")}
VERSION=${VERSION#v}
DIST=${DIST:-dist}
export VERSION DIST CGO_ENABLED=0 GOFLAGS='-trimpath -tags=disable_grpc_modules' # as the Makefile builds
sbom=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.1
ldflags="-s -w -X main.stamp=$VERSION"
formats=" ${FORMATS:-deb rpm wheel} "
rm -rf "$DIST"
mkdir -p "$DIST/pages"

build() { # OS ARCH PROGRAM
	GOOS=$1 GOARCH=$2 go build -buildvcs=false -ldflags "$ldflags" -o "$3" ./cmd/mlflowfs
	go run $sbom bin -json -output "$DIST/mlflowfs-$VERSION-$1-$2.cdx.json" "$3"
}

wheel() { # OS ARCH PROGRAM
	case $1-$2 in
	linux-amd64) machine=manylinux_2_17_x86_64.manylinux2014_x86_64 ;;
	linux-arm64) machine=manylinux_2_17_aarch64.manylinux2014_aarch64 ;;
	darwin-amd64) machine=macosx_12_0_x86_64 ;; # what this Go's programs want at least (go.dev/wiki/MinimumRequirements)
	darwin-arm64) machine=macosx_12_0_arm64 ;;
	esac
	out=$(cd "$DIST" && pwd)
	# As PEP 440 has it: of 1.2.3-5-gabc, five commits after a release, 1.2.3.post5+gabc.
	(
		export MLFLOWFS_WHEEL_VERSION="$(echo "$VERSION" | sed 's/-\([0-9]*\)-\(g[0-9a-f]*\)$/.post\1+\2/')" \
			MLFLOWFS_WHEEL_TAG="py3-none-$machine" MLFLOWFS_WHEEL_PROGRAM="$out/${3#"$DIST"/}" MLFLOWFS_WHEEL_SBOM="$out/mlflowfs-$VERSION-$1-$2.cdx.json"
		cd "$DIST/python" && "$hatchling" -m hatchling build -t wheel -d "$out"
	)
}

case $formats in *" wheel "*)
	./test/setup.sh wheel
	hatchling=$(cd "${MLFLOWFS_TESTENV:-.testenv}/wheel/bin" && pwd)/python
	cp -r packaging/python LICENSE "$DIST"
	mv "$DIST/LICENSE" "$DIST/python"
	;;
esac
for arch in ${ARCHES:-amd64 arm64}; do
	build linux "$arch" "$DIST/$arch/mlflowfs"
	tar -C "$DIST/$arch" -czf "$DIST/mlflowfs-$VERSION-linux-$arch.tar.gz" mlflowfs
	case $formats in *" wheel "*)
		for system in ${SYSTEMS:-linux darwin}; do
			program=$DIST/$arch/mlflowfs
			if [ "$system" != linux ]; then
				program=$DIST/$system-$arch/mlflowfs
				build "$system" "$arch" "$program"
			fi
			wheel "$system" "$arch" "$program"
		done
		;;
	esac
done
go run ./cmd/mlflowfs __pages "$DIST/pages"
gzip -9n "$DIST"/pages/man/*.1
for arch in ${ARCHES:-amd64 arm64}; do
	for format in deb rpm; do
		case $formats in *" $format "*)
			ARCH=$arch go run $nfpm package --config packaging/nfpm.yaml --packager "$format" --target "$DIST/"
			;;
		esac
	done
done
(cd "$DIST" && sha256sum -- *.tar.gz *.deb *.rpm *.whl *.cdx.json 2>/dev/null >SHA256SUMS || true)
ls -l "$DIST"
