#!/bin/sh
# Install Debian's cross-compilers and emulator where apt may be used; without them nettrim still works, and says
# which programs it could not build. Usage: install_tools.sh PACKAGE...
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "not installed (no apt, or not root):$missing; programs for boards are not built or emulated"
    exit 0
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # the list is meant to split
apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    echo "could not be installed:$missing; programs for boards are not built or emulated"
