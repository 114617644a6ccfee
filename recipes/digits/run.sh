#!/usr/bin/env bash
# Images without a download: VAE and Skip-VAE with fully connected layers and with a PixelCNN, and a
# Skip-VAE that is told which digit it sees, on the 8 x 8 digits that come with scikit-learn. About
# two minutes on two cores, after installation.
#
#   bash recipes/digits/run.sh

set -euo pipefail
name=digits
models="mlp-vae mlp-skip_vae mlp-skip_vae-condition vae skip_vae"
jobs=2
samples=50
last=4

prepare() {
  python "$root/data/digits/prepare.py" --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
. "$(dirname "$0")/../pictures.sh"
main "$@"
