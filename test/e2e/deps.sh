#!/bin/sh
# Installs the Debian packages that the tests in pods use, and those that are
# named, if this machine is a Debian one and we are root.
set -eu
exec sh "$(dirname "$0")/../../hack/deps.sh" containerd runc containernetworking-plugins iproute2 redis-server "$@"
