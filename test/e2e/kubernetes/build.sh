#!/bin/sh
# Builds the Kubernetes programs of go.mod into a cache outside the clone and
# prints the directory: about 20 CPU minutes the first time, nothing after that.
# Takes: Go, the module proxy, 4 GB of build cache.
set -eu
cd "$(dirname "$0")"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.} minor=${minor%%.*}
dir=${XDG_CACHE_HOME:-$HOME/.cache}/podnotify/kubernetes-$version
echo "$dir"

missing=""
for program in kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl; do
	[ -x "$dir/$program" ] || missing="$missing k8s.io/kubernetes/cmd/$program"
done
[ -n "$missing" ] || exit 0

echo "kubernetes: building$missing $version into $dir, about 20 CPU minutes in all" >&2
# Without these the programs call themselves v0.0.0 and kubelet and API server refuse each other.
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
done
# Built beside the cache and moved into it whole: a build that was interrupted leaves no half program.
mkdir -p "$dir"
new=$(mktemp -d "$dir/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' INT TERM
# shellcheck disable=SC2086
CGO_ENABLED=0 nice -n 10 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$new/" $missing
mv "$new"/* "$dir/"
