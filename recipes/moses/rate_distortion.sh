#!/usr/bin/env bash
# What exact reconstruction of molecules costs: models from the best likelihood to the most exact one, by
# free bits and by beta, next to a plain VAE and the settings of MOSES. All have the sizes of base.yaml and
# read the same 800,000 molecules once (TRAIN=N: N of them); 2,000 samples of each are drawn (MOLECULES=N).
# Takes about three hours on two cores; run it again to resume.
#
#   bash recipes/moses/rate_distortion.sh --data WHEEL [--out DIR] [--jobs N] [options of textvae train]

set -euo pipefail
name=moses-rate-distortion
models="lm vae benchmark skip_vae"
samples=20
jobs=2
. "$(dirname "$0")/../stages.sh"
. "$recipe/measure.sh"
parse_options "$@"
[ "$stage $stop_stage" = "1 99" ] || fail "--stage, --stop-stage: this study has no stages"
out="${out:-runs/$name}"
data="$root/data/moses"
ensure_environment

python "$data/prepare.py" ${place:+--source "$place"} --out "$out/corpus" --train "${TRAIN:-800000}"
grid() {
  textvae sweep --config "$recipe/base.yaml" --data.dir "$out/corpus" --out "$out" --jobs "$jobs" \
    --seeds "$seeds" --samples "$samples" --generations 0 --no-report "$@" ${train_options[@]+"${train_options[@]}"}
}
grid --methods $models
grid --methods skip_vae-free_bits --vary objective.free_bits=4,16,32,48,68
grid --methods skip_vae --vary objective.beta=0.1,0.3

runs=("$out"/lm* "$out"/vae* "$out"/benchmark* "$out"/skip_vae*)
for run in "${runs[@]}"; do measure "$run" "$out/corpus" "${MOLECULES:-2000}" > /dev/null; done
textvae compare "${runs[@]}" --plot "$out/rate-distortion.svg"
python "$data/table.py" "${runs[@]}"
