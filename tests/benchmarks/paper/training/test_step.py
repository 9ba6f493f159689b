from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.paper.training.batches import Data, Feed, on_device
from benchmarks.paper.training.recipe import PAPER
from benchmarks.paper.training.step import Arithmetic, Stepper
from exporter.models.resnet import ResNet, build, initialise
from tests.benchmarks.paper.corpora import corpus, network

BATCH = 16
RATE = 0.05


@pytest.fixture(scope="module")
def data() -> Data:
    return on_device(corpus(), PAPER, network(), "cpu")


def new_network() -> ResNet:
    model = build(network())
    initialise(model, 0)
    return model.train()


def stepper(data: Data, arithmetic: Arithmetic) -> Stepper:
    model = new_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    made = Stepper(model, Feed(data.train, BATCH, seed=0), PAPER, arithmetic)
    made.feed.begin(0)
    made.set_rate(RATE)
    return made


def by_hand(data: Data, steps: int) -> tuple[ResNet, float]:
    """The paper's update written out: v = m v + (g + d w), w = w - r v."""
    model, feed = new_network(), Feed(data.train, BATCH, seed=0)
    feed.begin(0)
    momenta = [torch.zeros_like(parameter) for parameter in model.parameters()]
    losses = 0.0
    for _ in range(steps):
        images, targets = feed.next()
        loss = F.cross_entropy(model(images.contiguous(memory_format=torch.contiguous_format)), targets)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        losses += float(loss.detach())
        with torch.no_grad():
            for parameter, gradient, momentum in zip(model.parameters(), gradients, momenta, strict=True):
                momentum.mul_(0.9).add_(gradient + 1e-4 * parameter)
                parameter.sub_(RATE * momentum)
    return model, losses


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # both in the compiler itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"])
def test_updates_are_those_of_the_formula(data: Data, compiled: bool) -> None:
    wanted, losses = by_hand(data, 4)
    found = stepper(data, Arithmetic(compiled=compiled))
    for _ in range(4):
        found.step()
    for (name, one), other in zip(wanted.state_dict().items(), found.model.state_dict().values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5, err_msg=name)
    assert float(found.sums[0]) == pytest.approx(losses, rel=1e-5)
    assert set(found.model.state_dict()) == set(wanted.state_dict())


def test_bf16_stays_near_and_keeps_its_parameters_in_fp32(data: Data) -> None:
    _, losses = by_hand(data, 4)
    found = stepper(data, Arithmetic(precision="bf16"))
    for _ in range(4):
        found.step()
    assert float(found.sums[0]) == pytest.approx(losses, rel=0.05)
    assert float(found.sums[0]) != pytest.approx(losses, rel=1e-6)
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}


def test_a_state_restored_gives_the_same_bits_again(data: Data) -> None:
    found = stepper(data, Arithmetic())
    for _ in range(2):
        found.step()
    kept = {name: tensor.clone() for name, tensor in found.state().items()}
    ends = []
    for _ in range(2):
        found.restore(kept)
        found.feed.begin(0, step=2)
        for _ in range(3):
            found.step()
        ends.append({name: tensor.clone() for name, tensor in found.state().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in kept)
    assert not torch.equal(ends[0]["model.conv1.weight"], kept["model.conv1.weight"])
    assert not torch.equal(ends[0]["momentum.conv1.weight"], kept["momentum.conv1.weight"])


def test_the_error_is_counted_in_evaluation_mode(data: Data) -> None:
    found = stepper(data, Arithmetic())
    before = {name: tensor.clone() for name, tensor in found.model.state_dict().items()}
    error = found.error(data.test)
    model = found.model.eval()
    ((images, targets),) = data.test.crop_centres()
    with torch.no_grad():
        wrong = int((model(images).argmax(1) != targets).sum())
    assert error == wrong / 24
    assert all(torch.equal(before[name], tensor) for name, tensor in found.model.state_dict().items())


def test_a_network_learns(data: Data) -> None:
    found = stepper(data, Arithmetic())
    for epoch in range(6):
        found.feed.begin(epoch)
        found.sums.zero_()
        for _ in range(found.feed.steps):
            found.step()
        if epoch == 0:
            first = float(found.sums[0])
    assert float(found.sums[0]) < first / 2
    assert found.error(data.test) <= 0.5  # chance is 0.75
