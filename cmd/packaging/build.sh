#!/bin/sh
# Builds the packages: build.sh VERSION DIRECTORY "amd64 arm64" "deb rpm". They are in DIRECTORY afterwards, and what they
# are made of in DIRECTORY/build/ARCHITECTURE. Called by make. BUILDFLAGS are the go command's: see compile.
#
# The same tree gives the same bytes: no path of the builder's, no build time but the last commit's, files sorted by
# nfpm. RELEASE=1 also makes a tar.gz of the programs, a bill of materials and the sums.
set -eu
version=$1 dist=$2 arches=$3 formats=$4
cd "$(dirname "$0")/../.."
mkdir -p "$dist"
dist=$(cd "$dist" && pwd)
here=cmd/packaging
go=${GO:-go}
export LC_ALL=C TZ=UTC

# Without history the time is that of the changelog's first entry.
released() { date -d "$(sed -n 's/^ -- .*>  //p' $here/changelog | head -n 1)" +%s; }
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || released)}"
export SOURCE_DATE_EPOCH

$go build -modfile=$here/tools.mod -o "$dist/build/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm

# compile ARCHITECTURE DIRECTORY
compile() {
	cc=${CC:-gcc}
	[ "$1" = "$($go env GOHOSTARCH)" ] || case $1 in
	amd64) cc=x86_64-linux-gnu-gcc ;;
	arm64) cc=aarch64-linux-gnu-gcc ;;
	esac
	# shellcheck disable=SC2086 # several flags
	CGO_ENABLED=1 GOOS=linux GOARCH=$1 CC=$cc $go build ${BUILDFLAGS--trimpath -buildmode=pie} -buildvcs=false \
		-tags libvirt_dlopen -ldflags "-s -w -X duet/cmd/version.stamp=$version" -o "$2/" ./cmd/duet ./cmd/duetd
}

# stage ARCHITECTURE DIRECTORY: everything that packages of either kind hold, but the programs
stage() {
	mkdir -p "$2/man" "$2/completion" "$2/scripts"
	$go run ./$here/bill -licences "$2/THIRD-PARTY" "$2/duet" "$2/duetd"
	cp "$dist/build/pages"/*.1 $here/man/duetd.8 "$2/man/"
	cp "$dist/build/pages"/duet.bash "$dist/build/pages"/duet.zsh "$dist/build/pages"/duet.fish "$2/completion/"
	cp $here/deb/* $here/rpm/* "$2/scripts/"
	cp LICENSE $here/copyright $here/nfpm.yaml $here/apparmor/duet-volumes $here/selinux/duet.cil "$2/"
	cp $here/default/duetd "$2/duetd.options"
	sed "1s/(.*)/($version)/" $here/changelog >"$2/changelog"
	gzip -9nf "$2/changelog" "$2/THIRD-PARTY" "$2/man"/*.[18]
}

# units DIRECTORY OPTIONS
units() {
	for unit in duetd duet-guard duet-apps duetd-witness; do
		sed "s,@SBIN@,/usr/sbin,; s,@OPTS@,$2," $here/units/$unit.service.in >"$1/$unit.service"
	done
}

rm -rf "$dist/build/pages"
mkdir -p "$dist/build/pages"
$go run -buildvcs=false -tags man -ldflags "-X duet/cmd/version.stamp=$version" ./cmd/duet "$dist/build/pages"

for arch in $arches; do
	tree=$dist/build/$arch
	rm -rf "$tree"
	mkdir -p "$tree"
	compile "$arch" "$tree"
	stage "$arch" "$tree"
	for format in $formats; do
		case $format in
		deb) units "$tree" /etc/default/duetd ;;
		rpm) units "$tree" /etc/sysconfig/duetd ;;
		esac
		find "$tree" -exec touch -hd "@$SOURCE_DATE_EPOCH" {} +
		(cd "$tree" && ARCH=$arch VERSION=$version "$dist/build/nfpm" package -p "$format" -t "$dist/")
	done
	[ "${RELEASE-}" = 1 ] || continue
	name=duet-$version-linux-$arch
	$go run ./$here/bill -version "$version" -sbom "$dist/$name.cdx.json" "$tree/duet" "$tree/duetd"
	units "$tree" /etc/default/duetd
	tar -C "$tree" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --mode=u=rwX,go=rX \
		--transform "s,^\.,$name," -cf - ./duet ./duetd ./duetd.service ./duet-guard.service ./duet-apps.service ./duetd-witness.service ./LICENSE \
		./THIRD-PARTY.gz ./man ./completion | gzip -9n >"$dist/$name.tar.gz"
done
[ "${RELEASE-}" != 1 ] || (cd "$dist" && sha256sum duet[-_]* >SHA256SUMS)
