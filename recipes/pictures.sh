# Sourced by the recipes of images after stages.sh: pictures in place of sentences, classification
# from the latent, and sweeps. A model's name may end in a variant of its YAML file: mlp_vae-l2 has
# 2 decoder layers, vae-z50 a latent of 50. A sweep is asked for by its number (--stage 9) and fills
# one table, RUNS/sweep-9.md, that the results page takes in.

first="${first:-0}"  # numbers of two test images: the ends of the interpolation
last="${last:-1}"

variant_options() { # model
  case "$1" in
    *-l*) echo "--images.decoder_layers ${1##*-l}" ;;
    *-z*) echo "--model.latent_dim ${1##*-z}" ;;
  esac
}

evaluate_once() {
  printf '\n-- %s\n' "$1"
  textvae evaluate "$out/$1" --samples "$samples"
  textvae probe "$out/$1"
}

show_all() {
  each draw_pictures
}

draw_pictures() {
  local run="$out/$1" picture="$out/pictures/$1" greedy="" draw=--do-sample
  mkdir -p "$out/pictures"
  if grep -q '"decoder": "mlp"' "$run/config.json"; then greedy=--greedy draw=""; fi  # means
  textvae sample "$run" -n 100 $greedy --out "$picture-samples.png"
  textvae reconstruct "$run" $draw --out "$picture-reconstructions.png"
  textvae interpolate "$run" "$first" "$last" --steps 12 $draw --out "$picture-interpolation.png"
  textvae map "$run" --out "$picture-map.png"
  if grep -q '"latent_dim": 2,' "$run/config.json"; then
    textvae sample "$run" --walk 15 $greedy --out "$picture-walk.png"
  fi
}

sweep() { # number, title, models
  local number="$1" title="$2"
  if [ "$stage" -ne "$number" ]; then return; fi
  printf '\n== stage %s: %s\n' "$number" "$title"
  models="$3"
  each_at_once train_once
  each_at_once evaluate_once
  { printf '## %s\n\n' "$title"; compare_all --provenance; } > "$out/sweep-$number.md"
  cat "$out/sweep-$number.md"
}

results() { # needs stage 5; pictures of the corpus itself stay out of the page
  local model kind
  {
    cat "$recipe/about.md"
    compare_all --provenance
    for sweep in "$out"/sweep-*.md; do
      if [ -e "$sweep" ]; then printf '\n'; cat "$sweep"; fi
    done
    for model in $models; do
      printf '\n## %s\n' "$model"
      for kind in samples interpolation walk map; do
        if [ -e "$out/pictures/$model-$kind.png" ]; then
          printf '\n![%s of %s](pictures/%s-%s.png)\n' "$kind" "$model" "$model" "$kind"
        fi
      done
    done
  } > "$out/RESULTS.md"
  echo "written: $out/RESULTS.md, its pictures in $out/pictures"
}
