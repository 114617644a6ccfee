#!/usr/bin/env bash
# MNIST, VAE and Skip-VAE: with fully connected layers, and with a small PixelCNN that a CPU can
# train (the paper's size: --models "vae skip_vae", on a GPU). The images are not shipped: give
# their place with --data.
#
#   bash recipes/mnist/run.sh --data PLACE
#   bash recipes/mnist/run.sh --data PLACE --stage 9   the paper's sweep: 7 latent sizes and 8 layers
#                                                      of the PixelCNN, 9 layers of the MLP

set -euo pipefail
name=mnist
samples=8  # of the bound: each is a pass of the PixelCNN over the test set, minutes on a CPU
models="mlp_vae mlp_skip_vae vae_small skip_vae_small"

prepare() {
  python "$root/data/mnist/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

further_stages() {
  sweep 7 "Latent sizes, PixelCNN of 9 layers" \
    "vae-z2 vae-z10 vae vae-z50 vae-z100 skip_vae-z2 skip_vae-z10 skip_vae skip_vae-z50 skip_vae-z100"
  sweep 8 "Layers of the PixelCNN, z = 20" \
    "vae-l1 vae-l3 vae-l6 vae skip_vae-l1 skip_vae-l3 skip_vae-l6 skip_vae"
  sweep 9 "Layers of the MLP decoder, z = 50" \
    "mlp_vae-l2 mlp_vae-l3 mlp_vae mlp_skip_vae-l2 mlp_skip_vae-l3 mlp_skip_vae"
}

. "$(dirname "$0")/../stages.sh"
. "$(dirname "$0")/../pictures.sh"
main "$@"
