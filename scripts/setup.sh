#!/usr/bin/env bash
# Installs what building and testing perft needs on Debian 12; does nothing when all of it is there.
set -euo pipefail

packages=(g++ cmake ninja-build ccache git python3 catch2 libbenchmark-dev nlohmann-json3-dev libcli11-dev
  libtomlplusplus-dev libfmt-dev libutf8proc-dev libdnnl-dev clang-format)

if ! command -v dpkg-query >/dev/null; then
  echo "scripts/setup.sh: not a Debian system; install the equivalents of: ${packages[*]}"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  if [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  echo "scripts/setup.sh: everything is installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! sudo -n true 2>/dev/null; then
    echo "scripts/setup.sh: missing ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo -n)
fi

echo "scripts/setup.sh: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
