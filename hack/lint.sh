#!/bin/sh
# Runs golangci-lint in the version this project is checked with, building it
# once into the user's cache.
set -eu
version=v2.15.0
dir="${XDG_CACHE_HOME:-$HOME/.cache}/podnotify/golangci-lint-$version"
if [ ! -x "$dir/golangci-lint" ]; then
	echo "lint: building golangci-lint $version" >&2
	mkdir -p "$dir"
	(cd / && GOBIN="$dir" GOFLAGS=-mod=mod go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version")
fi
exec "$dir/golangci-lint" run "$@"
