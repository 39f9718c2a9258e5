"""The moving average is the closed form, and swapping it in leaves no trace."""

import pytest
import torch
from torch import nn

from sparse_detr.engine.ema import ModelEma


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()


def test_average_is_the_closed_form() -> None:
    net, decay = model(), 0.9
    average = ModelEma(net, decay=decay)
    history = [net[0].weight.detach().clone()]
    for _ in range(7):
        with torch.no_grad():
            net[0].weight.add_(torch.randn_like(net[0].weight))
        average.update(net)
        history.append(net[0].weight.detach().clone())
    steps = len(history) - 1
    expected = decay**steps * history[0] + sum(
        (1 - decay) * decay ** (steps - index) * value
        for index, value in enumerate(history)
        if index
    )
    torch.testing.assert_close(average.average["0.weight"], expected, atol=1e-12, rtol=0)


def test_warmup_starts_near_the_present_weights() -> None:
    net = model()
    average = ModelEma(net, decay=0.999, warmup=100.0)
    average.update(net)
    assert average.current_decay() < 0.01


def test_integer_buffers_are_copied() -> None:
    net = model()
    average = ModelEma(net, decay=0.5)
    net(torch.randn(5, 3, dtype=torch.float64))
    average.update(net)
    assert average.average["1.num_batches_tracked"] == 1


def test_weights_are_bit_identical_after_use_even_when_it_raises() -> None:
    net = model()
    average = ModelEma(net, decay=0.5)
    with torch.no_grad():
        net[0].weight.add_(1e-3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="inside"), average.applied_to(net):
        torch.testing.assert_close(net[0].weight, average.average["0.weight"], atol=0, rtol=0)
        assert not torch.equal(net[0].weight, before["0.weight"])
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_state_survives_saving_and_another_model_is_refused() -> None:
    net = model()
    average = ModelEma(net, decay=0.5)
    with torch.no_grad():
        net[0].weight.add_(1.0)
    average.update(net)
    other = ModelEma(net, decay=0.5)
    other.load_state_dict(average.state_dict())
    assert other.updates == 1 and torch.equal(
        other.average["0.weight"], average.average["0.weight"]
    )
    with pytest.raises(ValueError, match="another model"):
        ModelEma(nn.Linear(2, 2)).load_state_dict(average.state_dict())
    with pytest.raises(ValueError, match="shape"):
        ModelEma(nn.Linear(2, 2)).load_state_dict(ModelEma(nn.Linear(3, 2)).state_dict())


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        ModelEma(model(), decay=decay)
