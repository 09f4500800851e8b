#!/bin/sh
# Checks the programs that tests run. As root on Debian it installs missing ones; otherwise it lists them and fails.
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
need cc "gcc libc6-dev"
need systemd-analyze systemd

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # Tests take half the time with it; without it, they take chromium.
    needed=$missing
    need chromium-headless-shell chromium-headless-shell
fi
[ -z "$missing" ] && exit 0
if [ -z "${needed+known}" ]; then
    echo "The tests need programs that are not installed:$missing" >&2
    echo "Install them. On Debian: sudo apt-get install$missing" >&2
    exit 1
fi
echo "Installing$missing …"
# Packages start their servers when installed. Prevent that: the tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # split into one word per package
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; } || [ -z "$needed" ]
