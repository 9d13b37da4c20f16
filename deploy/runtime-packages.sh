#!/bin/bash
# Prints the Debian packages that hold the system libraries a program is linked
# with: what an image needs to run it, under whatever names its release uses.
#
#   deploy/runtime-packages.sh PROGRAM
set -euo pipefail

(($# == 1)) || {
  echo "usage: ${BASH_SOURCE[0]} PROGRAM" >&2
  exit 2
}
if ldd "$1" | grep 'not found' >&2; then
  exit 1
fi
# On a merged /usr the linker says /lib where the package says /usr/lib, or the
# other way around. Libraries outside packages (torch's) have no owner.
ldd "$1" | awk '$2 == "=>" { print $3 }' | while read -r library; do
  dpkg-query -S "$library" 2>/dev/null ||
    dpkg-query -S "/usr$library" 2>/dev/null ||
    dpkg-query -S "${library#/usr}" 2>/dev/null || true
done | sed 's/:.*//' | sort -u
