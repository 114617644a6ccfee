"""Elementwise loops in C (``kernels.c``), compiled for this machine when first needed.

Between two matrix products, torch passes over memory once for every operation in an equation; these
loops pass over it once in total. Without a C compiler, or with ``TEXTVAE_KERNELS=off``, everything
still works, but more slowly: ``cell``, ``softmax`` and ``generate`` contain the same computations
in torch.

The compiled library is kept in the cache folder, or in a temporary one if other users can write to
the cache, under a name derived from its source, the compiler command and the processor. It uses the
OpenMP runtime that torch has loaded, so that the two share their threads.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.runs.cache import KERNELS, cache_folder, private_cache

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
OPTIONS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fPIC"]
POINTERS = {"lstm_forward": 4, "lstm_backward": 7, "softmax_nll": 8, "nucleus": 3}
FLAGS = {"lstm_forward": 2, "lstm_backward": 2, "softmax_nll": 3, "nucleus": 1}
DTYPES = (torch.float32, torch.bfloat16)


def available_for(x: Tensor) -> bool:
    """Whether the kernels are compiled and support products like x: on a CPU, fp32 or bf16."""
    return x.device.type == "cpu" and x.dtype in DTYPES and library() is not None


def lstm_forward(gates: Tensor, before: Tensor, cell: Tensor, hidden: Tensor) -> None:
    """Write c and h of a time step.

    Args:
        gates: (N, 4H), before activation.
        before: The previous c, (N, H).
        cell: Where to write c, (N, H); may be ``before``.
        hidden: Where to write h, (N, H).
    """
    rows, size = before.shape
    _loaded().lstm_forward(rows, size, *_pointers(gates, before, cell, hidden), *_how(gates))


def lstm_backward(
    gates: Tensor,
    before: Tensor,
    cell: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor,
    d_gates: Tensor,
    total: Tensor,
) -> None:
    """Write the gradients of a time step.

    Args:
        gates: (N, 4H), before activation.
        before: The previous c, (N, H).
        cell: The c of this step, (N, H).
        d_hidden: The gradient of h, (N, H).
        d_cell: The part of the gradient of c that comes from later steps, (N, H); replaced by the
            gradient of ``before``.
        d_gates: Where to write the gradient of the gates, (N, 4H).
        total: The fp32 sum to which that gradient is added, (N, 4H).
    """
    rows, size = before.shape
    tensors = gates, before, cell, d_hidden, d_cell, d_gates, total
    _loaded().lstm_backward(rows, size, *_pointers(*tensors), *_how(gates))


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
    """Write the nll of a softmax, and replace the logits with its gradient.

    Args:
        logits: (N, V), without the bias.
        bias: (V,), or (S, V) with ``groups``.
        targets: (N,) int64.
        groups: (N,) int64, the row of ``bias`` that each row uses.
        weights: (N,), factors of the gradient of each row; rows of weight 0 have an nll of 0.
        nll: Where to write the nll, (N,).
        d_bias: Where to add the gradient of the bias, if it is needed.
        with_gradient: Whether to replace the logits with their gradient.

    Raises:
        IndexError: If a target is not a word.
    """
    rows, words = logits.shape
    if rows and not 0 <= int(targets.min()) <= int(targets.max()) < words:
        raise IndexError(f"targets must be at least 0 and below {words}, the number of words")
    threads = torch.get_num_threads()
    room = nll.new_empty(threads, words)
    sums = d_bias
    if d_bias is not None and groups is None:  # one sum per thread
        sums = nll.new_zeros(threads, words)
    integers = [_as(torch.int64, x) for x in (groups, targets)]
    tensors = (logits, _as(nll.dtype, bias), *integers, _as(nll.dtype, weights), nll, sums, room)
    _loaded().softmax_nll(rows, words, *_pointers(*tensors), int(with_gradient), *_how(logits))
    if d_bias is not None and sums is not None and sums is not d_bias:
        d_bias += sums.sum(0)


def nucleus(weights: Tensor, shares: Tensor) -> None:
    """Replace by 0 the weights below the one at which the ascending sum first exceeds a share.

    Args:
        weights: (N, V) fp32, not negative.
        shares: Of the total, (N,) fp32, from 0 to 1.
    """
    rows, words = weights.shape
    threads = torch.get_num_threads()
    room = weights.new_empty(threads, words)
    _loaded().nucleus(rows, words, *_pointers(weights, shares, room), threads)


def _as(dtype: torch.dtype, x: Tensor | None) -> Tensor | None:
    return x if x is None else x.to(dtype).contiguous()


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    for tensor in tensors:
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)} is not contiguous")
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


def _how(products: Tensor) -> tuple[int, int]:
    return int(products.dtype == torch.bfloat16), torch.get_num_threads()


def _loaded() -> ctypes.CDLL:
    compiled = library()
    if compiled is None:
        raise RuntimeError("the kernels are not available: check available_for first")
    return compiled


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions, or None if they are unavailable."""
    if os.environ.get("TEXTVAE_KERNELS", "").lower() in ("off", "0"):
        return None
    compiler, why = os.environ.get("CC", "").split() or ["cc"], "no C compiler found: install gcc"
    for options, libraries in _ways() if shutil.which(compiler[0]) else []:
        try:
            return _declared(ctypes.CDLL(str(_compiled(compiler, options, libraries))))
        except subprocess.CalledProcessError:
            why = f"{compiler[0]} failed to compile it"
        except (OSError, subprocess.SubprocessError, UserError) as error:
            why = str(error)
    logger.info("not using %s (%s): training on a CPU takes about 10 %% longer", SOURCE.name, why)
    return None


def _ways() -> list[tuple[list[str], list[str]]]:
    """Options and libraries to try, best first."""
    native, runtime = ["-march=native"], _openmp_runtime()
    ways: list[tuple[list[str], list[str]]] = [(native, []), ([], [])]
    return [([*native, "-fopenmp"], [runtime]), *ways] if runtime else ways


def _openmp_runtime() -> str | None:
    """The OpenMP library that torch has loaded; other packages may have loaded a different one."""
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        paths = {"/" + line.partition("/")[2] for line in lines if "libgomp" in line}
        folder = Path(torch.__file__).resolve().parent  # as the operating system spells it
        of_torch = {path for path in paths if Path(path).is_relative_to(folder)}
        if len(of_torch or paths) == 1:
            return (of_torch or paths).pop()
    return None


def _compiled(compiler: list[str], options: list[str], libraries: list[str]) -> Path:
    """Compile the shared library, unless it is in the cache."""
    command = [*compiler, *OPTIONS, *options]
    name = hashlib.sha256(SOURCE.read_bytes())
    name.update("\0".join([*command, *libraries, _processor()]).encode())
    kept = _private_folder() / f"{name.hexdigest()[:32]}.so"
    if not _is_private(kept, stat.S_ISREG):
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part, whole = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
            # In two steps: -fopenmp would also link the OpenMP of the compiler.
            _run([*command, "-c", str(SOURCE), "-o", str(part)])
            strict = [] if platform.system() == "Darwin" else ["-Wl,-z,defs"]
            _run([*compiler, "-shared", str(part), *libraries, "-lm", *strict, "-o", str(whole)])
            whole.chmod(0o700)
            os.replace(whole, kept)
    return kept


def _private_folder() -> Path:
    """Return a folder that nobody else can write to: in the cache, or else a temporary one."""
    with suppress(OSError, UserError):  # a read-only cache, or none
        folder = cache_folder(None) / KERNELS
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if _is_private(folder, stat.S_ISDIR) and not _others_may_rename(folder):
            return folder
    return private_cache()


def _is_private(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether it is a file or folder of this user that nobody else can write to, not a link."""
    with suppress(OSError):
        found = path.lstat()
        mine = os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
        return mine and is_kind(found.st_mode)
    return False


def _others_may_rename(path: Path) -> bool:
    """Whether another user can put something else in the place of a file or folder."""
    if os.name == "nt":
        return False
    parent = path.parent.stat()
    foreign = parent.st_uid not in (os.getuid(), 0)
    return foreign or bool(parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _processor() -> str:
    """Identify the processor: a home folder may be shared by several machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags"))}))
    return platform.machine() + platform.processor()


def _declared(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the argument types of its functions: two sizes, pointers, then flags."""
    for name, pointers in POINTERS.items():
        sizes, addresses = [ctypes.c_int64] * 2, [ctypes.c_void_p] * pointers
        types = [*sizes, *addresses, *[ctypes.c_int] * FLAGS[name]]
        getattr(loaded, name).argtypes = types
        getattr(loaded, name).restype = None
    return loaded
