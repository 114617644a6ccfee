#!/usr/bin/env bash
# Yahoo Answers, the size of the Skip-VAE paper: language model, VAE, and Skip-VAE. The corpus may be
# used only for non-commercial research and is not included: pass its folder with --data.
#
#   bash recipes/yahoo/run.sh --data FOLDER

set -euo pipefail
name=yahoo
models="lm vae skip_vae"
first="what is the best way to lose weight ? eat less and exercise more every day ."
last="how do i get my computer to run faster ? delete the files you do n't need ."

prepare() {
  python "$root/data/yahoo/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
