"""Autocast and loss scaling."""

import pytest
import torch

from sparse_detr.engine.precision import MixedPrecision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("enabled", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_matrix_products_run_in_the_chosen_type(enabled: bool, dtype: torch.dtype) -> None:
    with MixedPrecision(enabled, "bfloat16", CPU).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is dtype


def test_types_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        MixedPrecision(True, "float16", CPU)
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        MixedPrecision(True, "int8", CPU)


def test_without_scaling_the_step_is_the_optimisers_and_the_state_is_empty() -> None:
    precision = MixedPrecision(True, "bfloat16", CPU)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward((weight * 2).sum())
    precision.unscale(optimizer)
    assert precision.step(optimizer) and weight.item() == -1.0
    assert precision.state_dict() == {} and not precision.scales_loss


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="float16 scaling needs a GPU")
def test_overflowing_float16_gradients_skip_the_step() -> None:
    device = torch.device("cuda")
    precision = MixedPrecision(True, "float16", device)
    weight = torch.nn.Parameter(torch.ones(1, device=device))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward((weight * torch.inf).sum())
    precision.unscale(optimizer)
    assert not precision.step(optimizer) and weight.item() == 1.0
