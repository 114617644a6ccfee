#!/usr/bin/env bash
# Penn Treebank, the size of the reference implementations: language model, VAE, and Skip-VAE, trained
# until the stopping rule applies. The corpus belongs to the Linguistic Data Consortium and is not
# included: pass its folder with --data.
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
