# Sourced by recipes/*/run.sh: the options all recipes share, and their numbered stages.
#   --stage N --stop-stage M   which stages to run       --data DIR   the corpus's source
#   --out DIR                  where runs go             anything else is handed to `textvae train`

stage=1
stop_stage=99
source_dir=""
out=""
train_options=()

usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

parse_options() { # "$@" of the recipe
  while [ $# -gt 0 ]; do
    case "$1" in
      -h | --help) usage; exit 0 ;;
      --stage | --stop-stage | --data | --out)
        if [ $# -lt 2 ]; then echo "$0: $1 needs a value" >&2; exit 2; fi
        case "$1" in
          --stage) stage="$2" ;;
          --stop-stage) stop_stage="$2" ;;
          --data) source_dir="$2" ;;
          --out) out="$2" ;;
        esac
        shift 2 ;;
      *) train_options+=("$1"); shift ;;
    esac
  done
  case "$stage$stop_stage" in
    *[!0-9]*) echo "$0: --stage and --stop-stage take numbers" >&2; exit 2 ;;
  esac
}

runs_stage() { # number, what it does
  [ "$1" -ge "$stage" ] && [ "$1" -le "$stop_stage" ] || return 1
  printf '\n== stage %s: %s\n' "$1" "$2"
}

train_once() { # config, run folder: starts it, continues it, or leaves it where it is done
  if [ -e "$2/config.yaml" ]; then
    textvae train --resume "$2" "${train_options[@]}"
  else
    textvae train --config "$1" --out "$2" --data.dir "$prepared" "${train_options[@]}"
  fi
}
