#!/usr/bin/env bash
# Short Yelp reviews with sentiment labels, small enough for a CPU: language model, VAE, and a Skip-VAE
# that does not collapse. The corpus is not included: pass its folder with --data.
#
#   bash recipes/yelp/run.sh --data FOLDER

set -euo pipefail
name=yelp
models="small-lm small-vae small-skip_vae-autoencode-free_bits-denoising"
first="the food is great and the service is friendly ."
last="the worst customer service i have ever had ."

prepare() {
  python "$root/data/yelp/prepare.py" ${place:+--source "$place"} --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
main "$@"
