#!/bin/sh
# Builds the image of the last commit twice, from clones in two places and with
# two umasks, and compares every byte.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for place in one another/place; do
	mkdir -p "$dir/$place"
	git clone -q --no-hardlinks "$top" "$dir/$place/podnotify"
done
(umask 022 && make -s -C "$dir/one/podnotify" image)
(umask 077 && make -s -C "$dir/another/place/podnotify" image)
for f in podnotify-image.tar podnotify-image-amd64.tar podnotify-image-arm64.tar; do
	cmp "$dir/one/podnotify/dist/$f" "$dir/another/place/podnotify/dist/$f"
	(cd "$dir/one/podnotify/dist" && sha256sum "$f")
done
