#!/usr/bin/env bash
# MNIST, VAE and Skip-VAE: with fully connected layers, and with a PixelCNN that is small enough for a
# CPU (the paper's size: --models "vae skip_vae", on a GPU). The images are not included: pass their
# location with --data.
#
#   bash recipes/mnist/run.sh --data PLACE
#   bash recipes/mnist/run.sh --data PLACE --stage 9   the paper's sweep: 7 latent sizes and 8 layers
#                                                      of the PixelCNN, 9 layers of the MLP,
#                                                      10 IWAE and VampPrior

set -euo pipefail
name=mnist
samples=8  # for the bound: each takes a pass of the PixelCNN over the test set, minutes on a CPU
models="mlp-vae mlp-skip_vae small-vae small-skip_vae"

prepare() {
  python "$root/data/mnist/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

further_stages() {
  sweep 7 "Latent sizes, PixelCNN of 9 layers" "vae skip_vae" --vary model.latent_dim=2,10,20,50,100
  sweep 8 "Layers of the PixelCNN, z = 20" "vae skip_vae" --vary images.decoder_layers=1,3,6,9
  sweep 9 "Layers of the MLP decoder, z = 50" "mlp-vae mlp-skip_vae" \
    --vary images.decoder_layers=2,3,4
  sweep 10 "Bounds and priors, MLP decoder of 2 layers, z = 50" \
    "mlp-vae mlp-skip_vae mlp-vae-iwae mlp-skip_vae-iwae
     mlp-vae-vamp_prior mlp-skip_vae-vamp_prior mlp-skip_vae-vamp_prior-iwae" \
    --vary images.decoder_layers=2
}

. "$(dirname "$0")/../stages.sh"
. "$(dirname "$0")/../pictures.sh"
main "$@"
