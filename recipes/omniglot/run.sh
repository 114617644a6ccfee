#!/usr/bin/env bash
# Omniglot, VAE and Skip-VAE: with fully connected layers, and with a PixelCNN that is small enough for
# a CPU (the paper's size: --models "vae skip_vae", on a GPU). The drawings are not included: pass
# their location with --data.
#
#   bash recipes/omniglot/run.sh --data PLACE
#   bash recipes/omniglot/run.sh --data PLACE --stage 8   the paper's sweep over the PixelCNN's layers

set -euo pipefail
name=omniglot
samples=8  # for the bound: each takes a pass of the PixelCNN over the test set, minutes on a CPU
models="mlp-vae mlp-skip_vae small-vae small-skip_vae"

prepare() {
  python "$root/data/omniglot/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

further_stages() {
  sweep 8 "Layers of the PixelCNN, z = 20" "vae skip_vae" --vary images.decoder_layers=1,3,6,9
}

. "$(dirname "$0")/../stages.sh"
. "$(dirname "$0")/../pictures.sh"
main "$@"
