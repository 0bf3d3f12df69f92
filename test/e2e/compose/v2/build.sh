#!/bin/sh
# Builds the docker compose of go.mod into a cache outside the clone and prints
# its path: about 7 CPU minutes the first time, nothing after that.
set -eu
cd "$(dirname "$0")"
version=$(go list -m -f '{{.Version}}' github.com/docker/compose/v2)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/podnotify/compose-$version
echo "$dir/docker-compose"
[ ! -x "$dir/docker-compose" ] || exit 0

echo "compose: building docker compose $version into $dir, about 7 CPU minutes" >&2
# Built beside it and moved: a build that was interrupted leaves no half program.
mkdir -p "$dir"
new=$(mktemp -d "$dir/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT
trap 'exit 1' INT TERM
CGO_ENABLED=0 nice -n 10 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
	-o "$new/docker-compose" github.com/docker/compose/v2/cmd
mv "$new/docker-compose" "$dir/"
