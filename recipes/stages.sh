# Sourced by recipes/*/run.sh. A recipe sets `name`, `models`, the two ends of its interpolation, and
# `prepare`; all recipes share the options, the numbered stages, and their commands:
#
#   --stage N, --stop-stage M   the first and the last stage to run
#   --data PLACE                the corpus: a folder, or a dataset name on the Hugging Face Hub
#   --out DIR                   where the prepared corpus and the runs go (runs/<recipe>)
#   --models "lm small-vae"     which models to train: stacks of YAML files, the --methods of textvae sweep
#   --seeds N                   runs of each model that differ in their seed
#   --samples K                 draws of z for the importance-weighted bound
#   --jobs N                    models trained and evaluated at the same time, one thread each
#   anything else               is passed to `textvae train`, such as --train.epochs 3

recipe="$(cd "$(dirname "$0")" && pwd)"
. "$recipe/../environment.sh"

stage=1
stop_stage=99
place=""
out=""
probe=""  # if set, also train probes on the latent variable
seeds=1
samples="${samples:-200}"
jobs="${jobs:-1}"
train_options=()

main() { # "$@" of the recipe
  parse_options "$@"
  out="${out:-runs/$name}"
  prepared="$out/corpus"
  truth="$prepared/grammar.json"  # the card of the true distribution, if it is known
  case "${place:+$(declare -f prepare)}" in
    '' | *'${place'*) ;;
    *) fail "--data $place: this recipe makes its own corpus: leave it out" ;;
  esac
  ensure_environment
  if runs_stage 1 "prepare the corpus"; then
    mkdir -p "$out" 2> /dev/null || fail "--out $out is not a folder and cannot become one"
    prepare
  fi
  train_and_evaluate
  if [ "$stage" -le 6 ] && [ "$stop_stage" -ge 4 ]; then each require_run; fi
  if runs_stage 4 "compare and diagnose"; then
    compare_all
    { diagnose_all; further_tables; } | tee "$out/tables.md"
  fi
  if runs_stage 5 "sample, reconstruct, interpolate"; then show_all; fi
  if runs_stage 6 "results page and report"; then results; report; fi
  if declare -F further_stages > /dev/null; then further_stages; fi  # some recipes have them
  printf '\nTo see the curves, samples, and latent space: tensorboard --logdir %s\n' "$out"
}

train_and_evaluate() { # in one go, if both stages run: a model is evaluated while others train
  if [ "$stage" -gt 3 ] || [ "$stop_stage" -lt 2 ]; then return; fi
  require_corpus
  if [ "$stage" -le 2 ] && [ "$stop_stage" -ge 3 ]; then
    printf '\n== stages 2 and 3: train and evaluate: %s\n' "$models"
    run_models > /dev/null  # stage 4 has the table
  elif runs_stage 2 "train: $models"; then
    run_models --train-only
  elif runs_stage 3 "evaluate on the test split"; then
    run_models > /dev/null
  fi
}

require_corpus() {
  [ -n "$(ls -A "$prepared" 2> /dev/null)" ] || fail "there is no corpus in $out: start with --stage 1"
}

parse_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; sed -n '4,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      --stage | --stop-stage | --data | --out | --models | --seeds | --samples | --jobs)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case "$1" in
          --stage) stage="$2" ;;
          --stop-stage) stop_stage="$2" ;;
          --data) place="$2" ;;
          --out) out="$2" ;;
          --models) models="$2" ;;
          --seeds) seeds="$2" ;;
          --samples) samples="$2" ;;
          --jobs) jobs="$2" ;;
        esac
        shift 2 ;;
      *) train_options+=("$1"); shift ;;
    esac
  done
  local number
  for number in "$stage" "$stop_stage" "$seeds" "$samples" "$jobs"; do
    case "$number" in
      '' | *[!0-9]*) fail "--stage, --stop-stage, --seeds, --samples, and --jobs take numbers" ;;
    esac
  done
  [ "$jobs" -ge 1 ] || fail "--jobs must be at least 1"
  [ "$stop_stage" -ge "$stage" ] || fail "--stop-stage $stop_stage comes before --stage $stage"
  [ -n "${models// /}" ] || fail "--models needs at least one model"
  for part in ${models//-/ }; do
    [ -e "$recipe/$part.yaml" ] || [ -e "$recipe/../methods/$part.yaml" ] ||
      fail "--models: there is no $part.yaml in recipes/methods or recipes/$name"
  done
}

fail() {
  echo "$0: $1" >&2
  exit 2
}

runs_stage() { # number, description
  [ "$1" -ge "$stage" ] && [ "$1" -le "$stop_stage" ] || return 1
  printf '\n== stage %s: %s\n' "$1" "$2"
}

each() { # command: runs it with the name of each model
  local model
  for model in $models; do "$1" "$model"; done
}

run_models() { # options of textvae sweep; starts or resumes each run, skips what is done
  if [ "$jobs" -eq 1 ]; then  # a run that has the machine to itself may use all of it
    local -x OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(getconf _NPROCESSORS_ONLN)}"
  fi
  textvae sweep --config "$recipe/base.yaml" --methods $models --data.dir "$prepared" --out "$out" \
    --no-report --seeds "$seeds" --samples "$samples" --jobs "$jobs" ${probe:+--probe} "$@" \
    ${train_options[@]+"${train_options[@]}"}
}

run_folder() { # of all seeds
  local run
  for run in "$out/$1" "$out/$1"-seed-*; do
    if [ -d "$run" ]; then printf '%s\n' "$run"; fi
  done
}

require_run() {
  [ -n "$(run_folder "$1")" ] || fail "there is no run of $1 in $out: start with --stage 2"
}

run_folders() {
  each run_folder
  if [ -e "$truth" ]; then printf '%s\n' "$truth"; fi
}

compare_all() {
  local baseline
  baseline="$(baseline_run)"
  if [ "$seeds" -gt 1 ]; then set -- --average-seeds "$@"; fi
  if [ -n "$baseline" ]; then set -- --baseline "$baseline" "$@"; fi
  run_folders | tr '\n' '\0' | xargs -0 textvae compare "$@"
}

baseline_run() { # the first language model, if it has the bounds of single examples
  local model run
  for model in $models; do
    run="$(run_folder "$model")"
    run="${run%%$'\n'*}"
    if is_language_model "$run" && [ -e "$run/metrics/test-iw.safetensors" ]; then
      printf '%s\n' "$run"
      return
    fi
  done
}

is_language_model() { # run folder
  grep -q '"latent_dim": 0' "$1/config.json"
}

latent_runs() {
  local run
  each run_folder | while read -r run; do
    if ! is_language_model "$run"; then printf '%s\n' "$run"; fi
  done
}

diagnose_all() { # of some examples, as many models at a time as --jobs; the report reads the records
  latent_runs | tr '\n' '\0' | xargs -0 -P "$jobs" -I {} \
    sh -c 'textvae diagnose "$1" --limit 300 > "$1/metrics/diagnosis.txt"' - {}
  printf '\nWhat `textvae diagnose --limit 300` says about each model (300 examples):\n\n'
  latent_runs | while read -r run; do  # the first paragraph: the verdict and its reason
    awk '!NF { exit } NR == 1 { printf "- **%s**:", $0; next } { printf " %s", $0 } END { print "" }' \
      "$run/metrics/diagnosis.txt"
  done
}

further_tables() { :; } # some recipes have them

show_all() { # as many models at a time as --jobs
  export -f is_language_model show_sentences
  export out first last
  printf '%s\n' $models | xargs -P "$jobs" -I {} \
    bash -euc 'show_sentences {} > "$out/{}/sentences.txt"'
  each show_file | tee "$out/sentences.txt"
}

show_file() {
  cat "$out/$1/sentences.txt"
}

show_sentences() {
  printf '\n-- %s: samples\n' "$1"
  textvae sample "$out/$1" -n 10
  if is_language_model "$out/$1"; then return; fi
  printf '\n-- %s: reconstructions\n' "$1"
  textvae reconstruct "$out/$1" "$first" "$last" --show-source
  printf '\n-- %s: interpolation\n' "$1"
  textvae interpolate "$out/$1" "$first" "$last" --steps 7
}

report() { # of some examples: enough for a verdict, and quick
  run_folders | tr '\n' '\0' | xargs -0 textvae report --out "$out/report.html" --limit 300
}

results() { # needs stages 4 and 5; the table with commands, seeds, commits, and cost, and all sentences, not selected
  {
    cat "$recipe/about.md"
    compare_all --provenance
    cat "$out/tables.md"
    printf '\n## Sentences (not selected)\n\n```text'
    cat "$out/sentences.txt"
    printf '```\n'
  } > "$out/RESULTS.md"
  echo "wrote $out/RESULTS.md"
}
