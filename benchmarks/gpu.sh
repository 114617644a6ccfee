#!/usr/bin/env bash
# Checks and measures textvae on one GPU, in parts that end within eight minutes each on an H100:
#
#   bash benchmarks/gpu.sh [PART ...] [--out DIR] [--wheels FOLDER] [--data FOLDER] [--dry]
#
#   check     every test that needs a GPU: losses, gradients, refinement, precisions, resuming, sampling
#   train     training steps of all models, sizes, and batch sizes, next to plain PyTorch steps
#   refine    semi-amortized steps           generate  sampling, greedy search, beams
#   evaluate  the bound with 500 samples     images    the PixelCNN of 9 layers
#   profile   where the time of a step goes
#   ptb       a whole run on Penn Treebank   mnist     rows of the paper's PixelCNN table
#
# Without a PART, all of them, one after another. Each prints tables and saves DIR/PART.json (by
# default in runs/gpu) after every measurement. A part that fails does not keep the next one from
# running; the exit status is then 1. No network is needed: --wheels is a folder with wheels of the
# packages that the machine lacks. ptb and mnist read FOLDER/ptb and FOLDER/mnist (by default below
# data), which data/*/prepare.py wrote. --dry runs everything at tiny sizes on the CPU.

set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(dirname "$here")"
known=(check train refine generate evaluate images profile ptb mnist)
limit=480  # seconds for a part; what it has measured by then is saved
parts=() out=runs/gpu wheels="" more=()

usage() {
  echo "gpu.sh: $1: choose from ${known[*]}, --out DIR, --wheels FOLDER, --data FOLDER, --dry" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case "$1" in
    --out) out="${2:?--out needs a folder}"; shift ;;
    --wheels) wheels="${2:?--wheels needs a folder}"; shift ;;
    --data) more+=(--data "${2:?--data needs a folder}"); shift ;;
    --dry) more+=(--dry) ;;
    *) [[ " ${known[*]} " == *" $1 "* ]] || usage "$1"; parts+=("$1") ;;
  esac
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=("${known[@]}")

python="$(command -v python3 || command -v python)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
  site="$(mktemp -d)"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl || exit 1
  export PYTHONPATH="$site:$PYTHONPATH"
fi
mkdir -p "$out"
failed=()
for part in "${parts[@]}"; do
  started=$SECONDS
  timeout --signal=INT --kill-after=15 "$limit" \
    "$python" "$here/gpu_parts.py" "$part" --out "$out" --seconds $((limit - 30)) ${more[@]+"${more[@]}"} 2>&1 |
    tee "$out/$part.log"
  status=${PIPESTATUS[0]}
  [ "$status" -eq 0 ] || failed+=("$part ($status)")
  echo "== $part: exit $status after $((SECONDS - started)) s"
done
[ ${#failed[@]} -eq 0 ] && exit
echo "FAILED: ${failed[*]}; 124 and 137: it ran longer than $limit s" >&2
exit 1
