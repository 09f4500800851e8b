#!/bin/sh
# Sees to the programs that tests run for real: as root on Debian it installs those that are missing, else it names them.
set -eu

missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

PATH="$PATH:/usr/sbin:/sbin"
need redis-server redis-server
need redis-cli redis-tools
need chromium chromium
need nginx nginx
need haproxy haproxy
need caddy caddy
need openssl openssl
need curl curl
need wget wget
need node nodejs
need npm npm
need promtool prometheus

[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "The tests run these for real, and they are missing:$missing" >&2
    echo "Install them, on Debian with: sudo apt-get install$missing" >&2
    exit 1
fi
echo "Installing$missing …"
# Packages start their servers when installed; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # one word a package
apt-get install -y -qq --no-install-recommends $missing >/dev/null
