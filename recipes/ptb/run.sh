#!/usr/bin/env bash
# Penn Treebank at the references' size: language model, VAE and Skip-VAE, to the stopping rule.
# The corpus is the Linguistic Data Consortium's and is not shipped: give its folder with --data.
#
#   bash recipes/ptb/run.sh --data FOLDER

set -euo pipefail
name=ptb
models="lm vae skip_vae"
first="the company said it expects to report a loss for the third quarter"
last="in new york stock exchange trading the shares closed at N down N cents"

prepare() {
  python "$root/data/ptb/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
