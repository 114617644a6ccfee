#!/usr/bin/env bash
# Yahoo Answers, small enough for a CPU: language model (also with SGD, which it prefers), VAE, and a
# Skip-VAE that does not collapse. The corpus may be used only for non-commercial research and is not
# included: pass its folder with --data.
#
#   bash recipes/yahoo/run.sh --data FOLDER
#   bash recipes/yahoo/run.sh --data FOLDER --models "lm vae skip_vae"    the size of the paper, on a GPU

set -euo pipefail
name=yahoo
models="small-lm-sgd small-lm small-vae small-skip_vae-autoencode-free_bits"
first="what is the best way to lose weight ? eat less and exercise more every day ."
last="how do i get my computer to run faster ? delete the files you do n't need ."

prepare() {
  python "$root/data/yahoo/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
