#!/usr/bin/env bash
# Installs real FHIR clients (npm, PyPI) and a second real FHIR server (Medplum's router, npm) into the folder given,
# once. Prints nothing when they are there; exits 3 with the reason when something cannot be had.
# Node comes from PyPI too: Medplum needs a later one than many machines have.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
into=${1:?usage: install.sh FOLDER}
mkdir -p "$into"
into=$(cd "$into" && pwd)
for needed in node npm python3; do
  command -v "$needed" >/dev/null || { echo "$needed is not installed" >&2; exit 3; }
done
log="$into/install.log"
is_installed() { cmp -s "$here/$1" "$into/$1.installed"; }
fails() { tail -n 5 "$log" >&2; echo "$1" >&2; exit 3; }

# What is imported from lies beside the scripts, so that Node finds it.
cp "$here"/*.mjs "$here"/*.py "$here/../neighbours/medplum-server.mjs" "$into/"

javascript() {
  is_installed package-lock.json && return
  cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$into/"
  (cd "$into" && npm ci --silent --ignore-scripts --omit=dev --omit=optional --omit=peer >"$log.npm" 2>&1) || return 1
  cp "$here/package-lock.json" "$into/package-lock.json.installed"
}

python() {
  is_installed requirements.txt && return
  local pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    python3 -m venv "$into/venv" || return 1
    pip=("$into/venv/bin/python" -m pip)
  fi
  rm -rf "$into/python"
  "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --target "$into/python" \
    --requirement "$here/requirements.txt" >"$log" 2>&1 || return 1
  cp "$here/requirements.txt" "$into/requirements.txt.installed"
}

# Both wait for the network most of the time.
javascript & npm_job=$!
python || { wait "$npm_job" || true; fails "pip could not install the Python clients"; }
wait "$npm_job" || { cat "$log.npm" >>"$log" || true; fails "npm could not install the JavaScript clients"; }
