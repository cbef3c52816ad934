#!/bin/sh
# Builds what is given to people into dist/: static programs for linux, deb and rpm packages, an SBOM of each program, and checksums.
# usage: build.sh [VERSION]      FORMATS and ARCHES say what of it (deb rpm; amd64 arm64)
set -eu
cd "$(dirname "$0")/.."
VERSION=${1:-$(git describe --tags 2>/dev/null || echo "0.0.0+g$(git rev-parse --short HEAD)")}
VERSION=${VERSION#v}
export VERSION CGO_ENABLED=0 GOFLAGS=-trimpath # as the Makefile builds
sbom=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.1
ldflags="-s -w -X main.stamp=$VERSION"
rm -rf dist
mkdir -p dist/pages

build() { # OS ARCH
	GOOS=$1 GOARCH=$2 go build -buildvcs=false -ldflags "$ldflags" -o "$3" ./cmd/mlflowfs
}
for arch in ${ARCHES:-amd64 arm64}; do
	build linux "$arch" "dist/$arch/mlflowfs"
	go run $sbom bin -json -output "dist/mlflowfs-$VERSION-linux-$arch.cdx.json" "dist/$arch/mlflowfs"
	tar -C "dist/$arch" -czf "dist/mlflowfs-$VERSION-linux-$arch.tar.gz" mlflowfs
done
go run ./cmd/mlflowfs __pages dist/pages
gzip -9n dist/pages/man/*.1
for arch in ${ARCHES:-amd64 arm64}; do
	for format in ${FORMATS:-deb rpm}; do
		ARCH=$arch go run $nfpm package --config packaging/nfpm.yaml --packager "$format" --target dist/
	done
done
(cd dist && sha256sum -- *.tar.gz *.deb *.rpm *.cdx.json 2>/dev/null >SHA256SUMS || true)
ls -l dist
