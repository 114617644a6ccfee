#!/usr/bin/env bash
# What exact reconstruction of molecules costs: models from the best likelihood to the most exact one, by
# free bits and by beta, next to a plain VAE and the settings of MOSES. All have the sizes of base.yaml and
# read the same 800,000 molecules once (TRAIN=N: N of them); 2,000 samples of each are drawn (MOLECULES=N).
# Takes about three hours on two cores; run it again to resume.
#
#   bash recipes/moses/rate_distortion.sh WHEEL [options of textvae train]

set -euo pipefail
here="$(dirname "$0")"
[ $# -ge 1 ] || { echo "$0: give the wheel of molsets, or the folder with its csv files" >&2; exit 2; }
source="$1"
shift
. "$here/../environment.sh"
ensure_environment
. "$here/measure.sh"
data="$here/../../data/moses"
out="runs/moses-rate-distortion"

python "$data/prepare.py" --source "$source" --out "$out/corpus" --train "${TRAIN:-800000}"
grid() {
  textvae sweep --config "$here/base.yaml" --data.dir "$out/corpus" --out "$out" --jobs 2 \
    --samples 20 --generations 0 --no-report "$@"
}
grid --methods lm vae benchmark skip_vae "$@"
grid --methods skip_vae-free_bits --vary objective.free_bits=4,16,32,48,68 "$@"
grid --methods skip_vae --vary objective.beta=0.1,0.3 "$@"

runs=("$out"/lm* "$out"/vae* "$out"/benchmark* "$out"/skip_vae*)
for run in "${runs[@]}"; do measure "$run" "$out/corpus" "${MOLECULES:-2000}" > /dev/null; done
textvae compare "${runs[@]}" --plot "$out/rate-distortion.svg"
python "$data/table.py" "${runs[@]}"
