# Sourced by recipes/*/run.sh and tests/run.sh: provides a Python environment with textvae.
# Uses the active environment, or creates .venv at the top of the repository. Installs textvae once,
# and again only if setup.py or constraints.txt has changed, so that later runs need no network. With
# TEXTVAE_INSTALLED set, as by `textvae reproduce`, the environment is left as it is.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

ensure_environment() { # [extra of setup.py]
  [ -n "${TEXTVAE_INSTALLED:-}" ] && return
  if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
    make_venv
    . "$root/.venv/bin/activate"
  fi
  install_textvae "${1:-}"
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" # another checkout may use the environment
}

make_venv() {
  local python
  [ -x "$root/.venv/bin/pip" ] && return
  for python in python3 python; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      "$python" -m venv "$root/.venv" && return
      echo "cannot create .venv: install the venv module of $python (Debian: python3-venv)" >&2
      exit 2
    fi
  done
  echo "textvae needs Python 3.10 or newer, but there is none on the PATH" >&2
  exit 2
}

install_textvae() { # extra
  local stamp wanted
  stamp="$(python -c 'import sys; print(sys.prefix)')/textvae-installed${1:+-$1}"
  wanted="$root $(cat "$root/setup.py" "$root/constraints.txt" | cksum)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
  echo "installing textvae and its dependencies: only once, takes a few minutes (torch is large)" >&2
  if ! python -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/constraints.txt" --editable "$root${1:+[$1]}"; then
    echo "the installation failed (see above); it needs a network connection" >&2
    exit 2
  fi
  echo "$wanted" > "$stamp"
}
