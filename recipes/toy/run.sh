#!/usr/bin/env bash
# The main job on the embedded corpus, offline: generate it, train a language model, a VAE and a
# Skip-VAE, evaluate, compare, sample. About three minutes on two cores, after installation.
#
#   bash recipes/toy/run.sh

set -euo pipefail
name=toy
models="lm vae skip_vae"
jobs=2
samples=20
first="how can i train for a marathon ? just run slowly most of the time ."
last="what do people mean by deadheading ? imagine the removal of withered flowers ."

prepare() {
  python "$root/data/toy/prepare.py" --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"

variant_options() { # skip_sa_vae-all-whole: see estimators.sh
  case "$1-" in
    *-none-* | *-sample-* | *-all-*) echo "--inference.decoder_terms $(cut -d- -f2 <<< "$1")" ;;
  esac
  case "$1" in
    *-whole) echo "--inference.token_share 1.0" ;;
  esac
}

main "$@"
