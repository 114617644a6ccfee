#!/usr/bin/env bash
# Molecules: MOSES with a language model, the settings of its own VAE, and models from the best
# likelihood to exact reconstruction. Needs RDKit (pip install -e ".[molecules]"); pass the wheel
# of molsets, or its csv files, with --data. TRAIN=N trains on N molecules instead of 1,574,663,
# MOLECULES=N draws N samples instead of 30,000.
#
#   bash recipes/moses/run.sh --data molsets-0.3.1-py3-none-any.whl

set -euo pipefail
name=moses
models="lm benchmark large-skip_vae-free_bits large-skip_vae-exact"
samples=20
first="CC1C2CCC(C2)C1CN(CCO)C(=O)c1ccc(Cl)cc1"
last="COc1ccc(-c2cc(=O)c3c(O)c(OC)c(OC)cc3o2)cc1O"

prepare() {
  python "$root/data/moses/prepare.py" ${place:+--source "$place"} --out "$prepared" \
    --train "${TRAIN:-0}"
}

. "$(dirname "$0")/../stages.sh"

. "$(dirname "$0")/measure.sh"

measure_model() { # model: as MOSES measures samples
  local reference="$prepared/reference"
  measure "$out/$1" "$prepared" "${MOLECULES:-30000}" --jobs "$jobs" --train "$reference/train.txt" \
    --test "$reference/test.txt" --test-scaffolds "$reference/test_scaffolds.txt"
}

further_tables() {
  each measure_model >&2
  printf '\n'
  each run_folder | tr '\n' '\0' | xargs -0 python "$root/data/moses/table.py"
}

main "$@"
