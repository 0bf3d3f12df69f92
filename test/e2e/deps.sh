#!/bin/sh
# Installs the Debian packages that the tests in pods use, if this machine is a
# Debian one and we are root. Other packages are named by arguments.
set -eu
packages="containerd runc containernetworking-plugins iproute2 redis-server $*"
command -v apt-get >/dev/null 2>&1 || { echo "test/e2e: no apt-get; tests in pods will skip" >&2; exit 0; }
missing=""
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "test/e2e: not root; tests in pods will skip until: apt-get install$missing" >&2
	exit 0
fi
echo "test/e2e: installing$missing" >&2
# The tests start what they need themselves: no package is to start its daemon.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -o DPkg::Lock::Timeout=300 -qq update
# shellcheck disable=SC2086
apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $missing >/dev/null
