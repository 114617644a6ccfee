"""The compiled loops against the same operations in torch, and what happens without them."""

import atexit
import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from textvae.errors import UserError
from textvae.text.decode.generate import _drop_tail
from textvae.text.nn import cell, kernels
from textvae.text.nn.softmax import _normalize, _Rows, token_nll

needs_compiler = pytest.mark.skipif(kernels.library() is None, reason="needs a C compiler")
DTYPES = [torch.float32, torch.bfloat16]
SIZES = [(1, 1), (3, 5), (2, 16), (5, 33), (32, 300)]  # the last is shared among threads


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def forgotten():
    """Look up the library again, now and afterward."""
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


def without(monkeypatch):
    monkeypatch.setattr(kernels, "available_for", lambda x: False)


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def forward_and_backward(rows, size, dtype):
    """Everything that a step writes, forward and backward."""
    gates, before = random(rows, 4 * size, dtype=dtype), random(rows, size)
    c, h = torch.empty_like(before), before.to(dtype)
    cell.forward(gates, before, c, h)
    dc, total = random(rows, size + 1)[:, :size].contiguous(), random(rows, 4 * size)
    d_gates = torch.empty_like(gates)
    cell.backward(gates, before, c, random(rows, size, dtype=dtype), dc, d_gates, total)
    return c, h, dc, d_gates, total


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_gate_step_is_that_of_torch(sizes, dtype, threads, monkeypatch):
    found = forward_and_backward(*sizes, dtype)
    without(monkeypatch)
    expected = forward_and_backward(*sizes, dtype)
    for a, b in zip(found, expected, strict=True):
        narrow = a.dtype == torch.bfloat16
        torch.testing.assert_close(a, b, rtol=2**-7 if narrow else 1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("scale", [1e-30, 80.0, 1e4, 1e30])
def test_no_gate_is_too_large_or_too_small(scale, monkeypatch):
    gates, before = scale * random(4, 20), random(4, 5)
    found, expected = ([torch.empty(4, 5), torch.empty(4, 5)] for _ in range(2))
    cell.forward(gates, before, *found)
    without(monkeypatch)
    cell.forward(gates, before, *expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_c_may_be_written_over_the_one_before():
    gates, before = random(3, 40), random(3, 10)
    c, h = torch.empty_like(before), torch.empty_like(before)
    kernels.lstm_forward(gates, before, c, h)
    kernels.lstm_forward(gates, before, before, torch.empty_like(h))
    assert torch.equal(before, c)


@needs_compiler
def test_bf16_is_rounded_as_torch_rounds():
    gates, before = random(64, 400, dtype=torch.bfloat16), random(64, 100)
    h = {dtype: torch.empty(64, 100, dtype=dtype) for dtype in DTYPES}
    for dtype in DTYPES:
        kernels.lstm_forward(gates.to(dtype), before, torch.empty_like(before), h[dtype])
    assert torch.equal(h[torch.bfloat16], h[torch.float32].bfloat16())


@needs_compiler
def test_bf16_ties_go_to_even():
    halves = torch.tensor([1 + k / 256 for k in range(9)])  # every other one is a tie
    logits, first = torch.zeros(9, 2, dtype=torch.bfloat16), torch.zeros(9, dtype=torch.int64)
    _normalize(logits, None, _Rows(first, None, 2 * halves), torch.empty(9), None, True)
    assert torch.equal(logits[:, 1], halves.bfloat16())


def normalized(logits, bias, rows, with_gradient=True):
    """nll, d_logits and d_bias."""
    logits = logits.clone()
    nll = torch.full((len(logits),), 7.0)
    d_b = None if bias is None else torch.zeros_like(bias)
    _normalize(logits, bias, rows, nll, d_b, with_gradient)
    return nll, logits, d_b


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bias", ["none", "one", "grouped"])
@pytest.mark.parametrize("words", [1, 7, 1300])  # more than a block
def test_rows_of_logits_are_normalized_as_torch_does(
    words, bias, weighted, dtype, threads, monkeypatch
):
    count = 40
    logits = 3 * random(count, words, dtype=dtype)
    targets = torch.arange(count) * 5 % words
    groups = torch.arange(count) % 3 if bias == "grouped" else None
    weights = torch.arange(count) % 4 / 2.0 if weighted else None
    table = {"none": None, "one": random(words), "grouped": random(3, words)}[bias]
    given = logits, table, _Rows(targets, groups, weights)
    found, plain = normalized(*given), normalized(*given, with_gradient=False)
    without(monkeypatch)
    expected = normalized(*given)
    torch.testing.assert_close(plain[0], found[0], rtol=1e-6, atol=2e-6)
    assert torch.equal(plain[1], logits)
    for a, b in zip(found, expected, strict=True):
        if a is not None:
            narrow = a.dtype == torch.bfloat16
            torch.testing.assert_close(a, b, rtol=2**-7 if narrow else 1e-5, atol=2e-6)


@needs_compiler
@pytest.mark.parametrize("scale", [1e-30, 1.0, 80.0, 1e4, 1e30])
def test_no_score_is_too_large_or_too_small(scale):
    logits, targets = scale * random(20, 50), torch.arange(20)
    logits[10:] -= 20 * scale  # none is above 0
    nll, d_logits, _ = normalized(logits, None, _Rows(targets, None, None))
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="none"))
    alone, *_ = normalized(logits, None, _Rows(targets, None, None), with_gradient=False)
    torch.testing.assert_close(alone, nll)
    expected = logits.softmax(1) - F.one_hot(targets, 50)
    torch.testing.assert_close(d_logits, expected, rtol=1e-5, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_a_number_stays_visible(bad, dtype):
    logits = random(4, 20, dtype=dtype)
    logits[2, 11] = bad
    nll, d_logits, _ = normalized(logits, None, _Rows(torch.zeros(4).long(), None, None))
    assert nll.isfinite().tolist() == [True, True, False, True]
    zeros = _Rows(torch.zeros(4).long(), None, None)
    alone, *_ = normalized(logits, None, zeros, with_gradient=False)
    assert alone.isfinite().tolist() == [True, True, False, True]
    assert not d_logits[2].isfinite().all() and d_logits[:2].isfinite().all()
    gates, before = random(2, 12, dtype=dtype), random(2, 3)
    gates[1, 4] = float("nan")
    c, h = torch.empty_like(before), before.to(dtype)
    cell.forward(gates, before, c, h)
    assert h.isnan().tolist() == [[False] * 3, [False, True, False]] == c.isnan().tolist()


@needs_compiler
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("words", [1, 5, 300])
def test_the_tail_is_that_of_sorted_weights(words, share, threads, monkeypatch):
    weights = random(9, words).mul(50).round().abs().div(64)  # sums are exact; ties and zeros
    weights[3] = 2.0 ** -torch.arange(words).clamp(max=20)
    weights[4:] = random(5, words).abs()  # numbers that differ in their last bits
    shares, found = torch.full((9,), share), weights.clone()
    _drop_tail(found, shares)
    without(monkeypatch)
    _drop_tail(weights, shares)
    assert torch.equal(found, weights)


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_compiler), False])
def test_a_sum_that_equals_the_share_does_not_exceed_it(compiled, monkeypatch):
    if not compiled:
        without(monkeypatch)
    weights = torch.tensor([[1.0, 2.0, 1.0, 0.0]])
    _drop_tail(weights, torch.tensor([0.5]))
    assert weights.tolist() == [[0.0, 2.0, 0.0, 0.0]]


@needs_compiler
def test_a_tensor_that_is_not_contiguous_is_refused():
    gates, state = random(2, 12), random(3, 2).t()
    with pytest.raises(ValueError, match=r"\(2, 3\) is not contiguous"):
        kernels.lstm_forward(gates, state, torch.empty(2, 3), torch.empty(2, 3))


@needs_compiler
@pytest.mark.parametrize("target", [-1, 20])
def test_a_target_that_is_not_a_word_is_refused(target):
    with pytest.raises(IndexError, match="below 20, the number"):
        token_nll(random(3, 8), random(20, 8), None, torch.tensor([1, 2, target]))


IN_ANY_ORDER = """
import re, sys
from pathlib import Path
for name in sys.argv[1].split():
    __import__(name)
found = lambda: set(re.findall(r"/\\S*libgomp\\S*", Path("/proc/self/maps").read_text()))
before = found()
from textvae.text.nn import kernels
assert kernels.library() is not None
print(sorted(found() - before), kernels._openmp_runtime())
"""


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("first", ["torch", "sentencepiece sklearn.cluster torch"])
def test_threads_are_shared_with_torch_only(first):
    """Other packages may load a different OpenMP."""
    command = [sys.executable, "-c", IN_ANY_ORDER, first]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    new, runtime = done.stdout.split(maxsplit=1)
    assert new == "[]"
    assert runtime.strip() == str(kernels._openmp_runtime())


def loss():
    features, weight = random(6, 8).requires_grad_(), random(20, 8).requires_grad_()
    nll = token_nll(features, weight, random(20), torch.arange(6) + 1)
    return nll.detach(), *torch.autograd.grad(nll.sum(), (features, weight))


@pytest.mark.parametrize("why", ["no compiler", "compiler fails", "off", "OFF", "0"])
def test_without_them_the_results_are_the_same(why, forgotten, monkeypatch, tmp_path, caplog):
    expected = loss()
    kernels.library.cache_clear()
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))  # nothing compiled there
    match why:
        case "no compiler":
            monkeypatch.setenv("CC", "no-such-compiler")
        case "compiler fails":
            monkeypatch.setenv("CC", "false")
        case _:
            monkeypatch.setenv("TEXTVAE_KERNELS", why)
    caplog.set_level("INFO", "textvae")
    assert kernels.library() is None
    said = {"no compiler": "no C compiler", "compiler fails": "false failed to compile it"}
    assert said.get(why, "") in caplog.text and len(caplog.records) == ("compiler" in why)
    for a, b in zip(loss(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_the_compiler_may_come_with_options(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "cc -pipe")
    assert kernels.library() is not None


@needs_compiler
def test_they_are_compiled_once(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    assert kernels.library() is not None
    (kept,) = (tmp_path / "kernels").iterdir()
    assert kept.stat().st_mode & 0o022 == 0  # nobody else may write there
    monkeypatch.setattr(kernels, "_run", lambda command: pytest.fail("compiled again"))
    kernels.library.cache_clear()
    assert kernels.library() is not None


@pytest.fixture
def pretended(forgotten, monkeypatch, tmp_path):
    """No compiler runs; the commands that would have run."""
    commands = []

    def run(command):
        commands.append(command)
        Path(command[-1]).touch()

    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_run", run)
    return commands


def test_another_source_command_runtime_or_processor_is_another_library(
    pretended, monkeypatch, tmp_path
):
    given = ["cc"], ["-march=native"], []
    paths = [kernels._compiled(*given), kernels._compiled(*given)]
    assert paths[0] == paths[1] and len(pretended) == 2
    for other in ((["gcc"], *given[1:]), (["cc"], [], []), (*given[:2], ["libgomp.so"])):
        paths.append(kernels._compiled(*other))
    monkeypatch.setattr(kernels, "_processor", lambda: "another")
    paths.append(kernels._compiled(*given))
    (tmp_path / "kernels.c").write_text("/* another */")
    monkeypatch.setattr(kernels, "SOURCE", tmp_path / "kernels.c")
    paths.append(kernels._compiled(*given))
    assert len(set(paths)) == 6 and all(path.parent == tmp_path / "kernels" for path in paths)


def test_a_compiler_without_options_for_this_processor_is_used(pretended, monkeypatch):
    def refuse(command):
        if "-march=native" in command:
            raise subprocess.CalledProcessError(1, command)
        pretend(command)

    pretend = kernels._run
    monkeypatch.setattr(kernels, "_run", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: path)
    monkeypatch.setattr(kernels, "_declared", lambda loaded: loaded)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert kernels.library() is not None and pretended


@pytest.mark.parametrize(
    "error", [subprocess.TimeoutExpired("cc", 60), OSError("no memory"), UserError("no cache")]
)
def test_a_compiler_that_cannot_finish_is_none(error, pretended, monkeypatch, caplog):
    def fail(command):
        raise error

    monkeypatch.setattr(kernels, "_run", fail)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    with caplog.at_level("INFO", "textvae"):
        assert kernels.library() is None
    assert f"({error})" in caplog.text


def test_a_temporary_folder_is_removed_at_the_end(pretended, monkeypatch, tmp_path):
    removed = []
    monkeypatch.setattr(atexit, "register", lambda *call, **how: removed.append(call))
    (tmp_path / "kernels").touch()
    folder = kernels._private_folder()
    assert not folder.is_relative_to(tmp_path) and removed == [(shutil.rmtree, folder)]
    folder.rmdir()


def test_a_user_whose_files_a_group_may_write_has_a_cache(pretended, tmp_path):
    before = os.umask(0o002)
    try:
        assert kernels._private_folder() == tmp_path / "kernels"
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode, private", [(0o700, True), (0o720, False), (0o702, False)])
def test_what_a_group_may_write_is_not_private(mode, private, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    assert kernels._is_private(tmp_path / "file", stat.S_ISREG) == private
    assert not kernels._is_private(tmp_path / "file", stat.S_ISDIR)


@pytest.mark.parametrize(
    "owner, mode, others",
    [
        *((0, 0o755, False), (0, 0o775, True), (0, 0o1777, False)),
        *((1, 0o700, True), (2, 0o700, False), (2, 0o702, True)),
    ],
)
def test_who_may_rename_depends_on_the_folder_around(owner, mode, others, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 2)
    around = SimpleNamespace(stat=lambda: SimpleNamespace(st_uid=owner, st_mode=mode))
    assert kernels._others_may_rename(SimpleNamespace(parent=around)) == others


def loaded_from(monkeypatch) -> Path:
    """Load the library again, and return where it was found."""
    paths = []
    original = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda path: paths.append(Path(path)) or original(path))
    kernels.library.cache_clear()
    assert kernels.library() is not None
    return paths[-1]


def another_user(folder, kept, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: kept.stat().st_uid + 1)


def writable_folder(folder, kept, monkeypatch):
    kept.parent.chmod(0o777)


def writable_parent(folder, kept, monkeypatch):
    folder.chmod(0o777)


def no_folder(folder, kept, monkeypatch):
    kept.unlink()
    monkeypatch.setenv("TEXTVAE_CACHE", str(kept.parent / "file"))
    (kept.parent / "file").touch()


def folder_is_a_link(folder, kept, monkeypatch):
    (folder / "kernels").rename(folder / "elsewhere")
    (folder / "kernels").symlink_to(folder / "elsewhere")


@needs_compiler
@pytest.mark.parametrize(
    "planted", [another_user, writable_folder, writable_parent, folder_is_a_link, no_folder]
)
def test_a_folder_that_others_can_write_to_is_not_used(forgotten, monkeypatch, tmp_path, planted):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    assert kernels.library() is not None
    (kept,) = (tmp_path / "kernels").iterdir()
    planted(tmp_path, kept, monkeypatch)
    used = loaded_from(monkeypatch)
    assert not used.is_relative_to(tmp_path)
    assert used.parent.stat().st_mode & 0o777 == 0o700


@needs_compiler
@pytest.mark.parametrize("kind", ["link", "writable"])
def test_a_planted_library_is_replaced(forgotten, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    assert kernels.library() is not None
    (kept,) = (tmp_path / "kernels").iterdir()
    if kind == "link":
        (tmp_path / "planted.so").write_bytes(kept.read_bytes())
        kept.unlink()
        kept.symlink_to(tmp_path / "planted.so")
    else:
        kept.chmod(0o777)
    before = kept.lstat().st_ino
    assert loaded_from(monkeypatch) == kept
    assert kept.lstat().st_ino != before and not kept.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o700


@needs_compiler
def test_openmp_is_optional(forgotten, monkeypatch, tmp_path):
    expected = loss()
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_openmp_runtime", lambda: "/no/such/libgomp.so")
    kernels.library.cache_clear()
    assert kernels.library() is not None
    for a, b in zip(loss(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
