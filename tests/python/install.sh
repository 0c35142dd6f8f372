#!/usr/bin/env bash
# Brings the packages of a requirements.txt into the folder given, once, unless this machine has them, which a line of
# Python tells. Prints the folder for PYTHONPATH (nothing where none is needed); exits 3 with the reason when they cannot be had.
set -euo pipefail
usage="usage: install.sh REQUIREMENTS PROBE FOLDER"
requirements=${1:?$usage}
probe=${2:?$usage}
into=${3:?$usage}
command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 3; }
works() { python3 -c "$probe" 2>/dev/null; }
works && exit 0
mkdir -p "$into"
into=$(cd "$into" && pwd)
if ! cmp -s "$requirements" "$into/requirements.installed"; then
  pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv "$into/venv" >&2 || { echo "python3 has neither pip nor venv" >&2; exit 3; }
    pip=("$into/venv/bin/python" -m pip)
  fi
  rm -rf "$into/python"
  "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --target "$into/python" \
    --requirement "$requirements" >&2 || { echo "pip could not install $requirements" >&2; exit 3; }
  cp "$requirements" "$into/requirements.installed"
fi
export PYTHONPATH="$into/python"
works || { echo "what $requirements names does not run on this machine" >&2; exit 3; }
echo "$PYTHONPATH"
