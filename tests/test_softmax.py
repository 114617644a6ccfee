"""Chunked token likelihoods against torch's cross entropy and finite differences."""

import pytest
import torch
from conftest import LargestTensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from textvae.text.nn.softmax import _ChunkedNLL, token_nll

CHUNKS = [None, 1, 4, 5, 13, 64]


def arguments(rows=13, width=6, vocabulary=11, dtype=torch.float64, ignored=()):
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    bias = torch.randn(vocabulary, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(1, vocabulary, (rows,), generator=generator)
    targets[list(ignored)] = 0
    return features, weight.requires_grad_(), bias, targets


def reference(features, weight, bias, targets, ignore_index=0):
    logits = F.linear(features, weight, bias)
    return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="none")


def assert_same_gradients(nll, expected, arguments, upstream):
    found = torch.autograd.grad(nll, arguments, upstream, retain_graph=True)
    for a, b in zip(found, torch.autograd.grad(expected, arguments, upstream), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("ignored", [(), (0,), (2, 3, 12), range(13)])
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_equals_cross_entropy(chunk, ignored, uniform, ahead):
    *inputs, targets = arguments(ignored=ignored)
    nll = token_nll(*inputs, targets, chunk=chunk, ahead=ahead)
    expected = reference(*inputs, targets)
    torch.testing.assert_close(nll, expected)
    upstream = torch.full_like(nll, -0.7) if uniform else torch.linspace(-1, 2, len(nll)).double()
    assert_same_gradients(nll, expected, inputs, upstream)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_chunks_in_fp32_add_up_whatever_the_strides(grouped, uniform, ahead):
    features, weight, bias, targets = arguments(dtype=torch.float32)
    targets = torch.stack([targets, targets], dim=1)[:, 0]
    table = torch.stack([bias, 2 * bias, -bias]).repeat(1, 2)[:, :11] if grouped else bias
    groups = torch.arange(13) % 3 if grouped else None
    nll = token_nll(features, weight, table, targets, chunk=4, groups=groups, ahead=ahead)
    logits = F.linear(features, weight) + (table[groups] if grouped else bias)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(nll, expected)
    upstream = torch.tensor(-0.7).expand(13) if uniform else torch.linspace(-1, 2, 26)[::2]
    assert_same_gradients(nll, expected, (features, weight, bias), upstream)


def test_a_transposed_bias_table_gets_its_gradient():
    features, weight, bias, targets = arguments(dtype=torch.float32)
    table = torch.stack([bias, 2 * bias, -bias], dim=1).t()  # (3, V), a column at a time
    groups = torch.arange(13) % 3
    nll = token_nll(features, weight, table, targets, groups=groups)
    expected = F.cross_entropy(
        F.linear(features, weight) + table[groups], targets, reduction="none"
    )
    assert_same_gradients(nll, expected, (features, weight, bias), torch.ones(13))


@pytest.mark.parametrize("ignored", [(), (0,), (2, 3, 12), range(13)])
@pytest.mark.parametrize("uniform", [True, False])
def test_ignored_rows_can_have_weight_zero_instead_of_being_left_out(ignored, uniform):
    """This is used on devices where selecting rows is expensive."""
    *inputs, targets = arguments(ignored=ignored)
    nll = _ChunkedNLL.apply(*inputs, targets, None, targets != 0, 4, torch.float64, True)
    expected = reference(*inputs, targets)
    torch.testing.assert_close(nll, expected)
    upstream = torch.full_like(nll, -0.7) if uniform else torch.linspace(-1, 2, len(nll)).double()
    assert_same_gradients(nll, expected, inputs, upstream)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("ignore_index", [0, -100])
def test_cuda_equals_cross_entropy(ignore_index):
    inputs = [a.detach().cuda() for a in arguments()]
    *inputs, targets = [a.requires_grad_() for a in inputs[:3]] + inputs[3:]
    targets[2:4] = ignore_index
    nll = token_nll(*inputs, targets, ignore_index, chunk=4)
    expected = reference(*inputs, targets, ignore_index)
    torch.testing.assert_close(nll, expected)
    assert_same_gradients(nll, expected, inputs, torch.full_like(nll, 0.5))


@pytest.mark.parametrize("reduce", [torch.sum, torch.mean, lambda nll: nll[3] * 2])
def test_reductions(reduce):
    *inputs, targets = arguments()
    found = torch.autograd.grad(reduce(token_nll(*inputs, targets)), inputs)
    expected = torch.autograd.grad(reduce(reference(*inputs, targets)), inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("needed", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_only_needed_arguments_get_a_gradient(needed):
    *inputs, targets = arguments(ignored=(1,))
    for k, tensor in enumerate(inputs):
        tensor.requires_grad_(k in needed)
    wanted = [inputs[k] for k in needed]
    upstream = torch.linspace(-1, 2, len(targets)).double()
    nll, expected = token_nll(*inputs, targets, chunk=4), reference(*inputs, targets)
    assert_same_gradients(nll, expected, wanted, upstream)


@pytest.mark.parametrize("ahead", [True, False])
def test_gradients_equal_finite_differences(ahead):
    *inputs, targets = arguments(7, 3, 5, ignored=(2,))
    assert torch.autograd.gradcheck(lambda *a: token_nll(*a, targets, chunk=3, ahead=ahead), inputs)


@pytest.mark.parametrize("uniform", [True, False])
def test_products_that_are_not_needed_are_not_computed(uniform):
    *inputs, targets = arguments()
    upstream = torch.ones(13).double() if uniform else torch.linspace(-1, 2, 13).double()
    flops = {}
    for ahead in (True, False):
        with FlopCounterMode(display=False) as counter:
            token_nll(*inputs, targets, ahead=ahead).backward(upstream)
        flops[ahead] = counter.get_total_flops()
    # The logits, dx, and dW; with unequal weights all of them twice, or the logits twice.
    assert flops[True] == flops[False] * (3 if uniform else 6) / 4


def test_without_bias_and_with_another_ignored_index():
    features, weight, _, targets = arguments(ignored=(1,))
    nll = token_nll(features, weight, None, targets, ignore_index=-100, chunk=4)
    expected = reference(features, weight, None, targets, ignore_index=-100)
    assert_same_gradients(nll, expected, (features, weight), torch.ones_like(nll))
    targets[1] = -100
    found = token_nll(features, weight, None, targets, ignore_index=-100)
    torch.testing.assert_close(found, reference(features, weight, None, targets, -100))


@pytest.mark.parametrize("implementation", ["chunked", "plain"])
@pytest.mark.parametrize("ignored", [(), (2, 3, 12)])
@pytest.mark.parametrize("uniform", [True, False])
def test_a_latent_in_the_bias_equals_a_latent_concatenated_to_the_features(
    implementation, ignored, uniform
):
    features, weight, bias, targets = arguments(ignored=ignored)
    groups = torch.arange(13) % 4
    z, w_z = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 11))
    table = bias + z @ w_z.t()
    nll = token_nll(
        features, weight, table, targets, chunk=4, implementation=implementation, groups=groups
    )
    both = torch.cat([features, z[groups]], dim=1), torch.cat([weight, w_z], dim=1)
    expected = reference(*both, bias, targets)
    torch.testing.assert_close(nll, expected)
    upstream = torch.full_like(nll, 2.0) if uniform else torch.linspace(-1, 2, 13).double()
    assert_same_gradients(nll, expected, (features, weight, bias, z, w_z), upstream)


def test_backward_can_run_twice():
    *inputs, targets = arguments()
    loss = 3 * token_nll(*inputs, targets, chunk=4).sum()  # the gradients are scaled in place
    first = [g.clone() for g in torch.autograd.grad(loss, inputs, retain_graph=True)]
    for a, b in zip(torch.autograd.grad(loss, inputs), first, strict=True):
        torch.testing.assert_close(a, b)


def test_bf16_products_keep_the_loss_and_the_gradients():
    *inputs, targets = arguments(512, 256, 1000, dtype=torch.float32)
    inputs[1].data.mul_(0.1)
    expected = reference(*inputs, targets)
    with torch.autocast("cpu", torch.bfloat16):
        nll = token_nll(*inputs, targets)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll.mean(), expected.mean(), rtol=2e-4, atol=0)
    found = torch.autograd.grad(nll.mean(), inputs)
    for a, b in zip(found, torch.autograd.grad(expected.mean(), inputs), strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.01 * b.norm()


@pytest.mark.parametrize("without", ["no_grad", "frozen"])
def test_without_gradients_only_the_forward_products_run(without):
    *inputs, targets = arguments(16, 4, 8)
    if without == "frozen":
        inputs = [a.detach() for a in inputs]
    with torch.set_grad_enabled(without == "frozen"), FlopCounterMode(display=False) as counter:
        token_nll(*inputs, targets)
    assert counter.get_total_flops() == 2 * 16 * 4 * 8


@pytest.mark.parametrize("uniform", [True, False])
def test_no_more_than_one_chunk_of_logits_is_alive(uniform):
    rows, vocabulary, chunk = 256, 100, 32
    *inputs, targets = arguments(rows, 8, vocabulary, dtype=torch.float32)
    upstream = torch.ones(rows) if uniform else torch.rand(rows)
    with LargestTensor() as largest:
        token_nll(*inputs, targets, chunk=chunk).backward(upstream)
    assert largest.bytes == chunk * vocabulary * 4


def test_the_chunked_gradients_can_be_differentiated():
    torch.manual_seed(0)
    shapes = [(5, 4), (6, 4), (2, 6)]
    arguments = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    targets, groups = torch.tensor([1, 0, 5, 2, 2]), torch.tensor([0, 0, 1, 1, 1])
    assert torch.autograd.gradgradcheck(
        lambda *given: token_nll(*given, targets, chunk=2, groups=groups), arguments
    )


@pytest.mark.parametrize("cast", [None, torch.bfloat16])
@pytest.mark.parametrize("grouped", [False, True])
def test_without_gradients_the_values_are_the_same(grouped, cast):
    """Another path is faster there."""
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(s, generator=generator) for s in [(50, 8), (600, 8), (3, 600)])
    targets = torch.randint(0, 600, (50,), generator=generator)
    groups = torch.arange(50) % 3 if grouped else None
    given = x.requires_grad_(), w, b if grouped else b[0], targets
    with torch.autocast("cpu", cast, enabled=cast is not None):
        expected = token_nll(*given, chunk=16, groups=groups)
        with torch.no_grad():
            found = token_nll(*given, chunk=16, groups=groups)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if cast is None else {"rtol": 0, "atol": 0.02}
    torch.testing.assert_close(found, expected.detach(), **tolerance)


def test_without_a_target_the_gradients_are_zero(monkeypatch):
    monkeypatch.setattr(torch, "empty_like", lambda x, **how: torch.full_like(x, torch.nan, **how))
    *inputs, targets = arguments(rows=3, ignored=range(3))
    inputs[0].requires_grad_()
    for gradient in torch.autograd.grad(token_nll(*inputs, targets, chunk=2).sum(), inputs):
        assert gradient.eq(0).all()
