#!/usr/bin/env bash
# The complete pipeline, offline: generate a corpus, train a language model, a VAE, and a Skip-VAE with
# a bidirectional encoder that autoencodes first and has normalized means and free bits, evaluate,
# compare, sample. About four minutes on two cores, after installation.
#
#   bash recipes/toy/run.sh

set -euo pipefail
name=toy
models="lm vae skip_vae-autoencode-batch_norm-free_bits-bidirectional"
jobs=2
samples=10
first="how can i train for a marathon ? you need to add one long run a week ."
last="do you know why my dog eats grass ? the reason is that it is bored ."

prepare() {
  python "$root/data/toy/prepare.py" --subjects 1 --train 36000 --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"

further_tables() {
  printf '\nWhat the grammar says about 500 texts of each kind:\n\n'
  each run_folder | tr '\n' '\0' | xargs -0 python "$root/data/toy/measure.py" --count 500
}

main "$@"
