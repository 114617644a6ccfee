#!/usr/bin/env bash
# The complete pipeline, offline: generate a corpus, train a language model, a VAE, and a Skip-VAE
# with free bits, evaluate, compare, sample. About five minutes on two cores, after
# installation.
#
#   bash recipes/toy/run.sh

set -euo pipefail
name=toy
models="lm vae skip_vae-free_bits"
jobs=2
samples=20
first="how can i train for a marathon ? just run slowly most of the time ."
last="what do people mean by deadheading ? imagine the removal of withered flowers ."

prepare() {
  python "$root/data/toy/prepare.py" --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"

further_tables() {
  printf '\nWhat the grammar says about 200 texts of each kind:\n\n'
  each run_folder | xargs python "$root/data/toy/measure.py" --count 200
}

main "$@"
