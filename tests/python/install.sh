#!/usr/bin/env bash
# Brings the Python package that verify.py needs into the folder given, once, unless this machine has it. Prints the
# folder for PYTHONPATH (nothing where none is needed); exits 3 with the reason when it cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
into=${1:?usage: install.sh FOLDER}
command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 3; }
works() { python3 -c 'from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as K; K.from_public_bytes(bytes(32))' 2>/dev/null; }
works && exit 0
mkdir -p "$into"
into=$(cd "$into" && pwd)
if ! cmp -s "$here/requirements.txt" "$into/requirements.installed"; then
  pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv "$into/venv" >&2 || { echo "python3 has neither pip nor venv" >&2; exit 3; }
    pip=("$into/venv/bin/python" -m pip)
  fi
  rm -rf "$into/python"
  "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --target "$into/python" \
    --requirement "$here/requirements.txt" >&2 || { echo "pip could not install cryptography" >&2; exit 3; }
  cp "$here/requirements.txt" "$into/requirements.installed"
fi
export PYTHONPATH="$into/python"
works || { echo "cryptography does not run on this machine" >&2; exit 3; }
echo "$PYTHONPATH"
