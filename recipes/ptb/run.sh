#!/usr/bin/env bash
# Penn Treebank, the size of the reference implementations: language model, VAE, and a Skip-VAE that
# does not collapse, 45 epochs each. The corpus belongs to the Linguistic Data Consortium and is not
# included: pass its folder with --data.
#
#   bash recipes/ptb/run.sh --data FOLDER                       an hour for each model
#   bash recipes/ptb/run.sh --data FOLDER --models "lm-short vae-short
#     skip_vae-autoencode-free_bits-denoising-short"            half an hour for each model
#   bash recipes/ptb/run.sh --data FOLDER --models "lm vae skip_vae"    SA-VAE's stopping rule

set -euo pipefail
name=ptb
models="lm-long vae-long skip_vae-autoencode-free_bits-denoising-long"
first="the company said it expects to report a loss for the third quarter"
last="in new york stock exchange trading the shares closed at N down N cents"

prepare() {
  python "$root/data/ptb/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
