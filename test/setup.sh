#!/bin/sh
# Installs what the tests need and is not there: fuse3; two MLflow releases,
# each in a virtual environment of its own below .testenv; real object stores:
# versitygw (S3), fake-gcs-server (GCS) and Azurite (Azure); and a new Debian.
set -eu
cd "$(dirname "$0")/.."
env=${MLFLOWFS_TESTENV:-$PWD/.testenv}
mkdir -p "$env"

missing=
command -v fusermount3 >/dev/null || missing="$missing fuse3"
command -v git >/dev/null || missing="$missing git"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev" # for go test -race
command -v ps >/dev/null || missing="$missing procps"
command -v rpm >/dev/null || missing="$missing rpm" # from here on, what the packages are tried with
command -v debootstrap >/dev/null || missing="$missing debootstrap"
command -v systemd-nspawn >/dev/null || missing="$missing systemd-container"
command -v qemu-aarch64-static >/dev/null || missing="$missing qemu-user-static"
command -v script >/dev/null || missing="$missing bsdutils"
command -v ip >/dev/null || missing="$missing iproute2" # from here on, what the pages use
command -v rsync >/dev/null || missing="$missing rsync"
command -v inotifywait >/dev/null || missing="$missing inotify-tools"
command -v bwrap >/dev/null || missing="$missing bubblewrap"
[ -d /usr/lib/python3/dist-packages/torch ] || missing="$missing python3-torch" # PyPI's comes with gigabytes for a GPU
command -v npm >/dev/null || missing="$missing nodejs npm"
python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3 python3-venv"
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "setup: install these first, as root: apt-get install$missing" >&2
		exit 1
	fi
	apt-get update -q
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

# install NAME PACKAGE... makes one environment, or leaves it if it holds just
# these packages already.
install() {
	name=$1
	shift
	if [ "$(cat "$env/$name/.wanted" 2>/dev/null)" = "$*" ]; then
		return
	fi
	rm -rf "${env:?}/$name"
	python3 -m venv "$env/$name"
	"$env/$name/bin/pip" install -q --disable-pip-version-check "$@"
	echo "$*" >"$env/$name/.wanted"
}
stores='boto3 google-cloud-storage azure-storage-blob azure-identity pyftpdlib'
# shellcheck disable=SC2086
install mlflow3 'mlflow==3.17.*' $stores pillow onnx onnxruntime duckdb safetensors 'Flask-WTF<2'
install mlflow2 'mlflow==2.22.*' 'sqlalchemy<2.1' boto3 pillow 'Flask-WTF<2'

# build PACKAGE@VERSION builds a Go program into bin, once.
build() {
	wanted=$env/bin/.$(basename "${1%@*}")
	if [ "$(cat "$wanted" 2>/dev/null)" = "$1" ]; then
		return
	fi
	CGO_ENABLED=0 GOFLAGS= GOBIN=$env/bin go install "$1"
	echo "$1" >"$wanted"
}
build github.com/versity/versitygw/cmd/versitygw@v1.8.0
build github.com/fsouza/fake-gcs-server@v1.56.1

# A new Debian, as its installer leaves it.
if [ ! -e "$env/debian/.made" ] && [ "$(id -u)" = 0 ]; then
	rm -rf "$env/debian"
	debootstrap --variant=minbase --include=systemd-sysv "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$env/debian" >"$env/debian.log" 2>&1 || {
		tail -20 "$env/debian.log"
		exit 1
	}
	touch "$env/debian/.made"
fi

azurite=azurite@3.35.0
if [ "$(cat "$env/azurite/.wanted" 2>/dev/null)" != "$azurite" ]; then
	rm -rf "$env/azurite"
	mkdir -p "$env/azurite"
	npm install --prefix "$env/azurite" --no-audit --no-fund --no-save --loglevel error "$azurite"
	echo "$azurite" >"$env/azurite/.wanted"
fi
