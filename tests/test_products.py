"""Products with oneDNN against torch's, for every memory layout."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from textvae.text.nn.products import prepared, product, recurrence, weight_gradient

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def matrix(rows, columns, layout, dtype):
    """A random matrix that is contiguous, transposed, or a slice of either."""
    whole = torch.randn(rows + 3, columns + 3, generator=torch.Generator().manual_seed(rows))
    whole = whole.to(dtype)
    match layout:
        case "rows":
            return whole[:rows, :columns].contiguous()
        case "columns":
            return whole[:rows, :columns].t().contiguous().t()
        case "slice":
            return whole[:rows, 1 : columns + 1]
        case "transposed slice":
            return whole.t().contiguous()[:columns, 1 : rows + 1].t()


LAYOUTS = ["rows", "columns", "slice", "transposed slice"]


class WeightsSeen(TorchDispatchMode):
    """Whether every weight that reached oneDNN's linear operation was dense."""

    all_dense = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_linear_pointwise" in str(function):
            weight = args[1]
            self.all_dense &= weight.is_contiguous() or weight.t().is_contiguous()
        return function(*args, **(kwargs or {}))


def assert_close(found, expected):
    loose = {"rtol": 2e-2, "atol": 5e-2} if found.dtype == torch.bfloat16 else {}
    torch.testing.assert_close(found.double(), expected, **(loose or {"rtol": 1e-5, "atol": 1e-5}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_products_of_every_layout(first, second, dtype):
    x, weight = matrix(7, 6, first, dtype), matrix(9, 6, second, dtype)
    d_outputs, inputs = matrix(7, 9, first, dtype), matrix(7, 6, second, dtype)
    with WeightsSeen() as seen:
        outputs, gradient = product(x, weight), weight_gradient(d_outputs, inputs)
    assert_close(outputs, x.double() @ weight.double().t())
    assert_close(gradient, d_outputs.double().t() @ inputs.double())
    assert seen.all_dense


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("steps", [1, 40])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_recurrence_is_a_product_and_a_sum(layout, steps, dtype):
    x, weight, added = matrix(3, 6, "rows", dtype), matrix(9, 6, layout, dtype), torch.ones(3, 9)
    found = recurrence(weight, 3, steps)(x, added.to(dtype))
    assert_close(found, x.double() @ weight.double().t() + 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prepared_weight_multiplies_any_number_of_rows(layout, dtype):
    weight = matrix(12, 7, layout, dtype)
    multiply = prepared(weight, 5)
    for rows in (1, 5, 40):
        x = matrix(rows, 7, "rows", dtype)
        assert_close(multiply(x), x.double() @ weight.double().t())
