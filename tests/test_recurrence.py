"""The LSTM's implementations against each other, nn.LSTM and finite differences."""

import pytest
import torch
from conftest import LargestTensor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from textvae.text.nn.recurrence import lstm

NAMES = ("inputs", "weight_ih", "weight_hh", "bias", "h0", "c0", "latent", "weight_latent")
SIZES = [(5, 3, 4, 6, 2), (1, 3, 4, 6, 2), (5, 1, 4, 6, 2), (1, 1, 1, 1, 1)]


def arguments(steps, batch, width, size, latent, dtype=torch.float64, requires=NAMES):
    """Random arguments for ``lstm``; latent 0 leaves out the last two."""
    generator = torch.Generator().manual_seed(steps * 100 + batch * 10 + size)
    shapes = [(steps, batch, width), (4 * size, width), (4 * size, size), (4 * size,)]
    shapes += [(batch, size), (batch, size)]
    shapes += [(batch, latent), (4 * size, latent)] if latent else []
    scale = 0.6 * max(size, 4) ** -0.5  # the range of nn.LSTM's initial weights
    tensors = [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]
    tensors = [
        t * scale if n.startswith("weight") else t for n, t in zip(NAMES, tensors, strict=False)
    ]
    return [t.requires_grad_(n in requires) for n, t in zip(NAMES, tensors, strict=False)]


def gradients(args, implementation):
    """The results, and the gradients of a scalar that depends on every entry of all three."""
    wanted = [a for a in args if a.requires_grad]
    results = lstm(*args, implementation=implementation)
    scalar = sum((r.to(torch.float64) * (k + 1)).cos().sum() for k, r in enumerate(results))
    return results, torch.autograd.grad(scalar, wanted)


def assert_same(found, expected, **tolerance):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("latent", [0, 2])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("implementation", ["fused", "library"])
def test_values_and_every_gradient_equal_the_plain_loop(implementation, sizes, latent):
    args = arguments(*sizes[:4], latent)
    results, grads = gradients(args, implementation)
    expected, expected_grads = gradients(args, "plain")
    assert_same(results, expected)
    assert_same(grads, expected_grads)


def shared(args, draws):
    """The same arguments, with states and latents for several rows that read the same inputs."""
    rows = {"h0", "c0", "latent"}
    return [
        torch.cat([a + k for k in range(draws)]).detach().requires_grad_(a.requires_grad)
        if name in rows
        else a
        for name, a in zip(NAMES, args, strict=False)
    ]


@pytest.mark.parametrize("latent", [0, 2])
@pytest.mark.parametrize("implementation", ["plain", "fused", "library"])
def test_rows_may_share_their_inputs(implementation, latent):
    args = shared(arguments(5, 2, 4, 6, latent), draws=3)
    results, grads = gradients(args, implementation)
    repeated = [args[0].repeat(1, 3, 1).detach().requires_grad_(), *args[1:]]
    expected, expected_grads = gradients(repeated, "plain")
    assert_same(results, expected)
    assert_same(grads[1:], expected_grads[1:])
    torch.testing.assert_close(grads[0], expected_grads[0].unflatten(1, (3, 2)).sum(1))


def test_shared_inputs_are_multiplied_once():
    args = [a.detach() for a in shared(arguments(4, 2, 3, 5, 2), draws=3)]
    with FlopCounterMode(display=False) as counter:
        lstm(*args, implementation="fused")
    assert counter.get_total_flops() == 2 * 20 * (4 * 2 * 3 + 6 * 2 + 4 * 6 * 5)


@pytest.mark.parametrize("how", ["frozen", "no_grad"])
def test_without_gradients_no_step_is_kept(how):
    args = arguments(50, 4, 3, 8, 2, dtype=torch.float32)
    expected = lstm(*args, implementation="plain")
    args = [a.detach() for a in args] if how == "frozen" else args
    with (
        torch.set_grad_enabled(how == "frozen"),
        torch.autocast("cpu", torch.bfloat16),
        LargestTensor() as largest,
    ):
        found = lstm(*args, implementation="fused")
    assert_same(found, expected, check_dtype=False, rtol=0.02, atol=0.02)
    assert largest.bytes == 2 * 50 * 4 * 32  # what the inputs add to the gates, in bf16


@pytest.mark.parametrize("implementation", ["plain", "fused", "library"])
def test_weights_are_those_of_torch(implementation):
    inputs, w_ih, w_hh, bias, h0, c0 = arguments(7, 3, 5, 4, 0)
    reference = nn.LSTM(5, 4).double()
    named = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh, "bias_ih_l0": bias}
    reference.load_state_dict({**named, "bias_hh_l0": torch.zeros_like(bias)})
    outputs, (h, c) = reference(inputs, (h0[None], c0[None]))
    found = lstm(inputs, w_ih, w_hh, bias, h0, c0, implementation=implementation)
    assert_same(found, (outputs, h[0], c[0]))


@pytest.mark.parametrize("implementation", ["plain", "fused"])
def test_gradients_equal_finite_differences(implementation):
    args = arguments(3, 2, 2, 3, 2)
    assert torch.autograd.gradcheck(lambda *a: lstm(*a, implementation=implementation), args)


def test_plain_can_be_differentiated_twice():
    args = arguments(2, 1, 2, 2, 1)
    assert torch.autograd.gradgradcheck(lambda *a: lstm(*a, implementation="plain"), args)


@pytest.mark.parametrize("implementation", ["fused", "library"])
@pytest.mark.parametrize("only", NAMES)
def test_a_single_argument_can_need_a_gradient(only, implementation):
    args = arguments(4, 2, 3, 5, 2, requires=(only,))
    _, found = gradients(args, implementation)
    _, expected = gradients(args, "plain")
    assert_same(found, expected)


@pytest.mark.parametrize("used", [0, 1, 2])
def test_unused_results_give_no_gradient(used):
    args = arguments(4, 2, 3, 5, 2)
    found = torch.autograd.grad(lstm(*args, implementation="fused")[used].sum(), args)
    expected = torch.autograd.grad(
        lstm(*args, implementation="plain")[used].sum(), args, allow_unused=True
    )
    expected = [
        torch.zeros_like(a) if e is None else e for a, e in zip(args, expected, strict=True)
    ]
    assert_same(found, expected)


def backward_flops(requires):
    args = arguments(4, 2, 3, 5, 2, requires=requires)
    outputs, _, _ = lstm(*args, implementation="fused")
    with FlopCounterMode(display=False) as counter:
        outputs.sum().backward()
    return counter.get_total_flops()


def test_frozen_arguments_cost_no_products():
    per_step = 2 * 2 * 20 * 5
    assert backward_flops(("h0",)) == 4 * per_step
    assert backward_flops(("latent",)) == 4 * per_step + 2 * 2 * 20 * 2
    everything = 2 * 4 * 2 * 20 * (3 + 3 + 5) + 2 * 2 * 20 * (2 + 2)
    assert backward_flops(NAMES) == 4 * per_step + everything


def test_backward_can_run_twice():
    args = arguments(4, 2, 3, 5, 2)
    loss = lstm(*args, implementation="fused")[0].square().sum()
    first = torch.autograd.grad(loss, args, retain_graph=True)
    assert_same(torch.autograd.grad(loss, args), first)


def test_upstream_gradients_are_left_as_they_are():
    args = arguments(4, 2, 3, 5, 2)
    results = lstm(*args, implementation="fused")
    upstream = [torch.ones_like(r) for r in results]
    torch.autograd.grad(results, args, upstream)
    assert all(bool((g == 1).all()) for g in upstream)


@pytest.mark.parametrize("implementation", ["fused", "library"])
def test_upstream_gradients_may_have_any_layout(implementation):
    args = arguments(4, 2, 3, 5, 2)

    def found(implementation):
        results = lstm(*args, implementation=implementation)
        weights = [torch.linspace(-1, 1, r.numel(), dtype=r.dtype) for r in results]
        transposed = [r.transpose(-1, -2) for r in results]
        pairs = zip(transposed, weights, strict=True)
        return torch.autograd.grad(sum((r * w.view_as(r)).sum() for r, w in pairs), args)

    assert_same(found(implementation), found("plain"))


def linear_gradients(args, implementation):
    """As ``gradients``, for a scalar that is linear in the results: noise is not amplified."""
    results = lstm(*args, implementation=implementation)
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(r.shape, generator=generator).to(r.dtype) for r in results]
    return results, torch.autograd.grad(results, args, upstream)


def test_bf16_products_keep_fp32_state_and_gradients():
    args = arguments(20, 8, 32, 64, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        results, found = linear_gradients(args, "fused")
    expected_results, expected = linear_gradients(args, "plain")
    assert [r.dtype for r in results] == [torch.bfloat16, torch.bfloat16, torch.float32]
    for a, b in zip(results, expected_results, strict=True):
        assert (a - b).norm() < 0.005 * b.norm()
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.015 * b.norm(), name


@pytest.mark.parametrize("steps", [3, 20])
def test_fp32_products_are_exact_to_fp32(steps):
    args = arguments(steps, 8, 32, 64, 8, dtype=torch.float32)
    results, found = linear_gradients(args, "fused")
    expected_results, expected = linear_gradients(args, "plain")
    for a, b in zip((*results, *found), (*expected_results, *expected), strict=True):
        assert (a - b).norm() < 2e-6 * b.norm()


def test_latent_and_its_weight_must_be_given_together():
    args = arguments(2, 1, 2, 2, 1)
    with pytest.raises(ValueError, match="given together"):
        lstm(*args[:7])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("latent", [0, 2])
def test_cuda_equals_the_plain_loop(latent):
    args = [a.detach().cuda().requires_grad_() for a in arguments(5, 3, 4, 6, latent)]
    results, grads = gradients(args, "auto")
    expected, expected_grads = gradients(args, "plain")
    assert_same(results, expected)
    assert_same(grads, expected_grads)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_torch_kernel_can_be_differentiated_twice(dtype):
    """On the CPU, where small sizes take it."""
    args = arguments(6, 4, 5, 7, 3, dtype=torch.float32)

    def second(implementation):
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            outputs = lstm(*args, implementation=implementation)[0].float()
        (d_z,) = torch.autograd.grad(outputs.square().sum(), args[6], create_graph=True)
        return torch.autograd.grad(d_z, [args[i] for i in (1, 2, 3, 6, 7)], d_z.detach())

    for a, b in zip(second("library"), second("plain"), strict=True):
        assert (a - b).norm() < (1e-5 if dtype == torch.float32 else 0.05) * b.norm()


@pytest.mark.parametrize("size", [8, 600])
def test_auto_gives_what_the_plain_loop_gives_for_small_and_large_sizes(size):
    args = arguments(3, 32, 5, size, 2, dtype=torch.float32)
    results, grads = linear_gradients(args, "auto")
    expected, expected_grads = linear_gradients(args, "plain")
    for a, b in zip((*results, *grads), (*expected, *expected_grads), strict=True):
        assert (a - b).norm() < 3e-6 * b.norm()


def test_second_derivatives_where_one_argument_comes_from_another():
    torch.manual_seed(0)
    shapes = [(3, 2, 2), (12, 2), (12, 3), (12,), (12, 2)]
    inputs, w_ih, w_hh, bias, w_z = (torch.randn(s, dtype=torch.float64) for s in shapes)
    z = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)

    def outputs(z, implementation):
        h0 = torch.cat([z, z[:, :1]], dim=1).tanh()
        given = (inputs * z, w_ih, w_hh, bias, h0, h0, z, w_z)
        return lstm(*given, implementation=implementation)[0]

    def hessian(implementation):
        (g,) = torch.autograd.grad(outputs(z, implementation).sin().sum(), z, create_graph=True)
        return torch.autograd.grad(g.sum(), z)[0]

    assert torch.allclose(hessian("fused"), hessian("plain"))


def test_the_fused_gradients_can_be_differentiated():
    torch.manual_seed(0)
    shapes = [(3, 2, 4), (12, 4), (12, 3), (12,), (2, 3), (2, 3), (2, 2), (12, 2)]
    arguments = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradgradcheck(
        lambda *given: lstm(*given, implementation="fused")[0], arguments
    )
