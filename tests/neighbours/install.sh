#!/usr/bin/env bash
# Installs the real neighbours of the journey tests into the folder given, once: an identity provider from npm
# and a FHIR server (helios-hfs). Prints nothing when they are there; exits 3 with the reason when one cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
into=${1:?usage: install.sh FOLDER}
mkdir -p "$into"
for needed in node npm python3; do
  command -v "$needed" >/dev/null || { echo "$needed is not installed" >&2; exit 3; }
done

if ! cmp -s "$here/package-lock.json" "$into/package-lock.json" || [ ! -d "$into/node_modules/oidc-provider" ]; then
  cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$into/"
  (cd "$into" && npm ci --silent --ignore-scripts >&2) || { echo "npm could not install oidc-provider" >&2; exit 3; }
fi
cp "$here/idp.mjs" "$into/"

ready="$here/../../../shared/tools/helios-hfs"
if [ ! -x "$into/hfs" ]; then
  if [ -f "$ready/hfs.xz" ]; then
    python3 -c 'import lzma,shutil,sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
      "$ready/hfs.xz" "$into/hfs.tmp"
    mkdir -p "$into/hfs-data"
    cp "$ready"/data/*.json "$into/hfs-data/"
    chmod +x "$into/hfs.tmp"
    "$into/hfs.tmp" --version >/dev/null 2>&1 || { echo "the ready helios-hfs does not run on this machine" >&2; exit 3; }
    # Last, because its presence says that everything is there.
    mv "$into/hfs.tmp" "$into/hfs"
  else
    echo "no ready helios-hfs beside the clone; cargo install helios-hfs --version 0.2.7 --locked builds one" >&2
    exit 3
  fi
fi
