#!/bin/sh
# Installs the Debian packages that the tests use, or those that are named, if this machine is a Debian
# one and we are root. Without them their tests skip and say what is missing;
# with CI set, a skipped test is a failed one.
set -eu
packages="${*:-redis-server nginx-light dnsmasq-base memcached python3-systemd python3-sdnotify collectd-core bind9 haproxy unbound mosquitto freeradius systemd libsystemd-dev gcc libc6-dev procps util-linux iproute2 e2fsprogs}"
command -v apt-get >/dev/null 2>&1 || { echo "deps: no apt-get; tests that need packages will skip" >&2; exit 0; }
missing=""
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "deps: not root; tests that need packages will skip until: apt-get install$missing" >&2
	exit 0
fi
echo "deps: installing$missing" >&2
# The daemons are for tests only: none is to be started by its package.
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
