#!/usr/bin/env bash
# Every remedy on one small model, with the plain decoder and with skip connections: a table, and the
# rate-distortion plane. Takes about 40 minutes on two cores; run it again to resume. Aggressive training
# is left out, because it takes ten times as long as the others.
#
#   bash recipes/toy/remedies.sh [--jobs N] [options of textvae train]

set -euo pipefail
here="$(dirname "$0")"
. "$here/../environment.sh"
ensure_environment
out="runs/remedies"
methods="free_bits autoencode-free_bits mdr batch_norm du scale pooled logistic cyclical beta \
  iwae mmd wae density_gap autoencode-free_bits-density_gap mixture_prior vamp_prior vmf denoising \
  word_dropout"

models="small-lm"
for model in vae skip_vae; do
  models+=" small-$model"
  for method in $methods; do models+=" small-$model-$method"; done
done
# Half of the documents that run.sh has, which is enough for models of half the size.
python "$here/../../data/toy/prepare.py" --subjects 1 --train 18000 --out "$out/corpus"
bash "$here/run.sh" --stage 2 --stop-stage 3 --out "$out" --models "$models" "$@"

runs=()
for model in $models; do runs+=("$out/$model"); done
textvae compare "${runs[@]}" "$out/corpus/grammar.json" --plot "$out/rate-distortion.svg"
