"""Elementwise loops in C (``kernels.c``), compiled for this machine the first time they are needed.

Between two matrix products torch's operations pass over memory once for every sign in an equation;
these pass once for all. Where there is no C compiler, or ``TEXTVAE_KERNELS=off`` is set, nothing
but speed is lost: ``cell``, ``softmax`` and ``generate`` hold the same in torch's operations.

The library is kept in the cache folder under a name made of its source, the compiler's command and
the processor; it takes part in OpenMP through the runtime that torch has loaded, so that the two
share their threads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.runs.cache import cache_folder

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
OPTIONS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC"]
POINTERS = {"lstm_forward": 4, "lstm_backward": 7, "softmax_nll": 8, "quantile": 3}
FLAGS = {"lstm_forward": 2, "lstm_backward": 2, "softmax_nll": 3, "quantile": 1}
DTYPES = (torch.float32, torch.bfloat16)


def serve(x: Tensor) -> bool:
    """Whether they compute on products like x: on a CPU, in fp32 or bf16, compiled."""
    return x.device.type == "cpu" and x.dtype in DTYPES and library() is not None


def lstm_forward(gates: Tensor, before: Tensor, cell: Tensor, hidden: Tensor) -> None:
    """Writes c and h (N, H) of a time step from its gates before activation (N, 4H) and the c
    before it. ``cell`` may be ``before``."""
    rows, size = before.shape
    library().lstm_forward(rows, size, *_pointers(gates, before, cell, hidden), *_how(gates))


def lstm_backward(
    gates: Tensor,
    before: Tensor,
    cell: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    d_gates: Tensor,
    total: Tensor,
) -> None:
    """The step back: writes d_gates (N, 4H), adds them to ``total`` (N, 4H) in fp32, and turns
    d_cell (N, H), the gradient of this step's c from later ones, into that of the c before."""
    rows, size = before.shape
    tensors = gates, before, cell, d_hidden, d_cell, d_gates, total
    library().lstm_backward(rows, size, *_pointers(*tensors), *_how(gates))


def softmax_nll(
    logits: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    groups: Tensor | None,
    weights: Tensor | None,
    nll: Tensor,
    d_bias: Tensor | None,
    with_gradient: bool,
) -> None:
    """Writes the nll (N,) of logits (N, V) plus bias, and over the logits its gradient, times the
    row's weight, which is also added to d_bias: (V,), or (S, V) with groups (N,).

    Raises:
        IndexError: a target is no word.
    """
    rows, words = logits.shape
    if rows and not 0 <= int(targets.min()) <= int(targets.max()) < words:
        raise IndexError(f"a target is not below {words}, the number of words")
    threads = torch.get_num_threads()
    room = nll.new_empty(threads, words)
    own = d_bias is not None and groups is None
    sums = nll.new_zeros(threads, words) if own else d_bias
    integers = [_as(torch.int64, x) for x in (groups, targets)]
    tensors = (logits, _as(nll.dtype, bias), *integers, _as(nll.dtype, weights), nll, sums, room)
    library().softmax_nll(rows, words, *_pointers(*tensors), int(with_gradient), *_how(logits))
    if own:
        d_bias += sums.sum(0)


def quantile(weights: Tensor, shares: Tensor) -> Tensor:
    """The weight, of weights (N, V) >= 0 in fp32 in rising order, at which their sum first exceeds
    this share (N,) of the total: (N,)."""
    rows, words = weights.shape
    found = torch.empty_like(shares)
    pointers = _pointers(weights, shares, found)
    library().quantile(rows, words, *pointers, torch.get_num_threads())
    return found


def _as(dtype: torch.dtype, x: Tensor | None) -> Tensor | None:
    return x if x is None else x.to(dtype).contiguous()


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"not contiguous: a tensor of shape {tuple(tensor.shape)}")
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _how(products: Tensor) -> tuple[int, int]:
    return int(products.dtype == torch.bfloat16), torch.get_num_threads()


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None where they cannot be had."""
    if os.environ.get("TEXTVAE_KERNELS", "").lower() in ("off", "0"):
        return None
    compiler, why = os.environ.get("CC", "").split() or ["cc"], "no C compiler; install gcc"
    for options, libraries in _ways() if shutil.which(compiler[0]) else []:
        try:
            return _declared(ctypes.CDLL(str(_compiled(compiler, options, libraries))))
        except subprocess.CalledProcessError:
            why = f"{compiler[0]} cannot compile it"
        except (OSError, subprocess.SubprocessError, UserError) as error:
            why = str(error)
    log.info("%s is not used (%s): the CPU takes about a tenth longer", SOURCE.name, why)
    return None


def _ways() -> list[tuple[list[str], list[str]]]:
    """Options and libraries to try, the best first."""
    native, runtime = ["-march=native"], _openmp_runtime()
    ways = [(native, []), ([], [])]
    return [([*native, "-fopenmp"], [runtime]), *ways] if runtime else ways


def _openmp_runtime() -> str | None:
    """The OpenMP library that torch has loaded into this process; others may have theirs there."""
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        paths = {"/" + line.partition("/")[2] for line in lines if "libgomp" in line}
        folder = Path(torch.__file__).resolve().parent  # as the kernel writes it
        of_torch = {path for path in paths if Path(path).is_relative_to(folder)}
        if len(of_torch or paths) == 1:
            return (of_torch or paths).pop()
    return None


def _compiled(compiler: list[str], options: list[str], libraries: list[str]) -> Path:
    """The shared library, from the cache if it is there."""
    command = [*compiler, *OPTIONS, *options]
    name = hashlib.sha256(SOURCE.read_bytes())
    name.update("\0".join([*command, *libraries, _processor()]).encode())
    kept = cache_folder(None) / "kernels" / f"{name.hexdigest()[:32]}.so"
    if not _is_own(kept):
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part, whole = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
            # In two steps: -fopenmp would link the compiler's own OpenMP beside torch's.
            _run([*command, "-c", str(SOURCE), "-o", str(part)])
            strict = [] if platform.system() == "Darwin" else ["-Wl,-z,defs"]
            _run([*compiler, "-shared", str(part), *libraries, "-lm", *strict, "-o", str(whole)])
            os.replace(whole, kept)
    return kept


def _is_own(path: Path) -> bool:
    """Whether it is there and this user's: what others put into a shared cache is not executed."""
    return path.exists() and (os.name == "nt" or path.stat().st_uid == os.getuid())


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _processor() -> str:
    """What the code is compiled for: a home folder may be shared by several machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags"))}))
    return platform.machine() + platform.processor()


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """With the types of its functions' arguments: two sizes, pointers, and flags to the end."""
    for name, pointers in POINTERS.items():
        types = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * pointers
        types += [ctypes.c_int] * FLAGS[name]
        getattr(loaded, name).argtypes = types
        getattr(loaded, name).restype = None
    return loaded
