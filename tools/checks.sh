#!/usr/bin/env bash
# Builds .venv/checks: the tools of tools/checks.txt, which see what .venv has and change nothing in it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(cat .venv/checks/.whole 2>/dev/null)" = "$PWD $(cksum < tools/checks.txt)" ] && exit 0
echo "building .venv/checks, the tools of tools/checks.txt (once)"
.venv/bin/python -m venv --clear .venv/checks
.venv/bin/python -c 'import site; print(*site.getsitepackages(), sep="\n")' > "$(echo .venv/checks/lib/python*/site-packages)/beside.pth"
.venv/checks/bin/python -m pip --disable-pip-version-check install --quiet -r tools/checks.txt
echo "$PWD $(cksum < tools/checks.txt)" > .venv/checks/.whole
