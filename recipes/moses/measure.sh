# Sourced by run.sh and rate_distortion.sh, after stages.sh.

measure() { # run folder, corpus, number of samples, options of textvae molecules metrics
  local run="$1" corpus="$2" count="$3" source sources="prior prior-greedy aggregate aggregate-greedy"
  shift 3
  if is_language_model "$run"; then sources="prior"; fi
  for source in $sources; do
    local file="$run/metrics/moses-$source"
    [ -s "$file.json" ] && continue
    textvae sample "$run" -n "$count" --batch-size 500 --from "${source%-greedy}" \
      $([ "$source" = "${source%-greedy}" ] || echo --greedy) --out "$file.txt"
    textvae molecules metrics "$file.txt" "$@" --json > "$file.json"
  done
  [ "$sources" = prior ] && return
  textvae molecules latent "$corpus/test.txt" --run "$run" --draw "$run/lines.svg" \
    --json > "$run/metrics/latent.json"
}
