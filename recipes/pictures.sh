# Sourced by the image recipes after stages.sh: images instead of sentences, probes of the latent
# variable, and sweeps. A sweep runs only if its number is given (--stage 9) and leaves one table,
# RUNS/sweep-9.md, which the results page includes.

first="${first:-0}"  # numbers of two test images: the ends of the interpolation
last="${last:-1}"

probe=1

show_all() {
  each draw_pictures
}

draw_pictures() {
  local run="$out/$1" picture="$out/pictures/$1" greedy="" draw=--do-sample given=""
  mkdir -p "$out/pictures"
  if grep -q '"decoder": "mlp"' "$run/config.json"; then greedy=--greedy draw=""; fi  # means
  textvae sample "$run" -n 100 $greedy --out "$picture-samples.png"
  textvae reconstruct "$run" $draw --out "$picture-reconstructions.png"
  if [ -e "$run/condition.json" ]; then given="--condition 0"; fi  # one label for the whole path
  textvae interpolate "$run" "$first" "$last" --steps 12 $draw $given --out "$picture-interpolation.png"
  textvae map "$run" --out "$picture-map.png"
  if grep -q '"latent_dim": 2,' "$run/config.json"; then
    textvae sample "$run" --walk 15 $greedy $given --out "$picture-walk.png"
  fi
}

sweep() { # number, title, models, options of textvae sweep
  [ "$stage" -eq "$1" ] || return 0
  require_corpus
  printf '\n== stage %s: %s\n' "$1" "$2"
  models="$3"
  run_models "${@:4}" > /dev/null
  { printf '## %s\n\n' "$2"; cat "$out/table.md"; } | tee "$out/sweep-$1.md"
}

results() { # needs stages 4 and 5; images of the corpus itself are not included in the page
  local model kind
  {
    cat "$recipe/about.md"
    compare_all --provenance
    cat "$out/tables.md"
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
  echo "wrote $out/RESULTS.md, and its images to $out/pictures"
}
