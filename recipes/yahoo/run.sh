#!/usr/bin/env bash
# Yahoo Answers, small enough for a CPU: language model, VAE, and a Skip-VAE that does not collapse,
# about an hour of one core each. The corpus may be used only for non-commercial research and is not
# included: pass its folder with --data.
#
#   bash recipes/yahoo/run.sh --data FOLDER --jobs 2
#   bash recipes/yahoo/run.sh --data FOLDER --models "small-lm small-skip_vae"    12 epochs of Adam instead
#   bash recipes/yahoo/run.sh --data FOLDER --models "lm vae skip_vae"    the size of the paper, on a GPU

set -euo pipefail
name=yahoo
models="small-long-lm small-long-vae small-long-skip_vae-autoencode-pooled-denoising-batch_norm"
samples=100
first="what is the best way to lose weight ? eat less and exercise more every day ."
last="how do i get my computer to run faster ? delete the files you do n't need ."

prepare() {
  python "$root/data/yahoo/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
