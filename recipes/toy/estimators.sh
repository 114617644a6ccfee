#!/usr/bin/env bash
# Compares ways to estimate the gradients of refinement, by training Skip-SA-VAE with two seeds and
# equal numbers of updates: with all of the decoder's terms through the steps, one sampled term, or
# none; and with the softmax of all time steps or of a quarter of them. Takes about an hour on one
# core; run it again to resume.
#
#   bash recipes/toy/estimators.sh [options of textvae train]

set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
. "$here/../environment.sh"
ensure_environment
out="runs/estimators"

vary() { # options of textvae sweep
  textvae sweep --config "$here/base.yaml" --methods small-skip_sa_vae --data.dir "$out/corpus" \
    --out "$out" --seeds 2 --samples 50 --jobs 2 --no-report "$@"
}

python "$here/../../data/toy/prepare.py" --out "$out/corpus"  # the whole grammar
vary --vary inference.decoder_terms=none,sample,all "$@"
vary --vary inference.decoder_terms=none --vary inference.token_share=1.0 "$@"
textvae compare "$out"/small-skip_sa_vae* "$out/corpus/grammar.json" --average-seeds
