"""Adam of what a gradient touches, and the optimiser that mixes it with the ordinary one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.adam import adam_step, adam_step_touched
from anchorfield.renderer.adam import Adam
from reference.made_scenes import generator

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def touching(step: int, count: int = 999, share: float = 0.3) -> Tensor:
    """A gradient [count, 2] that is zero here and there, a row's numbers not always together."""
    g = generator(step)
    return torch.randn(count, 2, generator=g) * (torch.rand(count, 2, generator=g) < share)


def zeros(count: int = 999) -> list[Tensor]:
    """Parameter and moments of a table, and its counts."""
    return [*(torch.zeros(count, 2) for _ in range(3)), torch.zeros(count, 2, dtype=torch.int16)]


def step_touched(state: list[Tensor], gradient: Tensor, **settings: float) -> None:
    parameter, moment1, moment2, counts = state
    adam_step_touched([parameter], [gradient], [moment1], [moment2], [counts], lr=[0.01], **settings)


def test_each_number_is_stepped_as_if_it_were_alone() -> None:
    """A number's history of gradients that are not zero is all that counts: as torch's Adam has it for that number."""
    state = zeros(40)
    gradients = [touching(step, 40) for step in range(30)]
    for gradient in gradients:
        step_touched(state, gradient)
    for at in range(40):
        history = [gradient[at, 1] for gradient in gradients if gradient[at, 1] != 0]
        alone = nn.Parameter(torch.zeros((), dtype=torch.float64))
        optimiser = torch.optim.Adam([alone], lr=0.01, betas=(0.9, 0.99), eps=1e-15)
        for value in history:
            alone.grad = value.double()
            optimiser.step()
        assert int(state[3][at, 1]) == len(history)
        # 30 steps of about a rate; beta2 rounds by less than an ulp, which 1 - beta2 feels a hundredfold
        error = abs(float(state[0][at, 1]) - float(alone.detach()))
        assert error < 30 * 0.01 * torch.finfo(torch.float32).eps / (1 - 0.99)


def test_what_is_not_touched_stays_bit_for_bit() -> None:
    state = zeros()
    for step in range(3):
        step_touched(state, touching(step))
    before, gradient = [t.clone() for t in state], touching(9)
    step_touched(state, gradient)
    for old, new in zip(before, state, strict=True):
        assert torch.equal(old[gradient == 0], new[gradient == 0])
    assert (before[0] != state[0])[gradient != 0].all()
    assert torch.equal(state[3] - before[3], (gradient != 0).to(torch.int16))


def test_a_gradient_without_zeros_is_ordinary_adam() -> None:
    state, ordinary = zeros(), zeros()[:3]
    for step in range(1, 6):
        gradient = torch.randn(999, 2, generator=generator(step))
        step_touched(state, gradient)
        parameter, moment1, moment2 = ordinary
        adam_step([parameter], [gradient], [moment1], [moment2], lr=[0.01], step=step, beta2=0.99)
    assert all(map(torch.equal, state[:3], ordinary))


def test_a_gradient_that_is_not_a_number_shows() -> None:
    state = zeros(20)
    gradient = torch.zeros(20, 2)
    gradient[3, 1] = torch.nan
    step_touched(state, gradient)
    assert torch.equal(state[0].isnan(), gradient.isnan())


def test_counts_stop_where_the_corrections_are_one() -> None:
    state, gradient = zeros(5), torch.ones(5, 2)
    state[3][:] = 1724
    for expected in (1725, 1725):
        step_touched(state, gradient)
        assert (state[3] == expected).all()
    far = zeros(5)
    far[3][:] = 1725
    again = [t.clone() for t in far]
    step_touched(far, gradient)
    # what 2^15 steps or more would give: nothing is corrected any more
    parameter, moment1, moment2, _ = again
    adam_step([parameter], [gradient], [moment1], [moment2], lr=[0.01], step=10**6, beta2=0.99)
    assert all(map(torch.equal, far[:3], again[:3]))


@pytest.mark.parametrize("beta", [-0.1, 0.9999, 1.0])
def test_betas_that_never_settle_are_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta2: expected 0 to 0.999\d+, so that 32767 steps are enough, got"):
        step_touched(zeros(3), touching(1, 3), beta2=beta)


# ---------------------------------------------------------------------------------------------------- the optimiser
BETAS = (0.9, 0.99)


def optimiser() -> Adam:
    """Of a table whose touched numbers are stepped and of a matrix that is stepped whole."""
    g = generator(1)
    parameters = {"table": torch.randn(999, 2, generator=g), "matrix": torch.randn(4, 3, generator=g)}
    leaves = {name: nn.Parameter(value) for name, value in parameters.items()}
    return Adam(leaves, {"table": 0.01, "matrix": 0.02}, touched=["table"], betas=BETAS)


def descend(adam: Adam, first: int, steps: int) -> None:
    for step in range(first, first + steps):
        adam.parameters["table"].grad = touching(step)
        adam.parameters["matrix"].grad = torch.randn(4, 3, generator=generator(step))
        adam.step()


def test_each_parameter_is_stepped_by_its_own_rule() -> None:
    adam = optimiser()
    table, matrix = (p.detach().clone() for p in adam.parameters.values())
    expected = [table, *zeros()[1:]]
    moments = torch.zeros(4, 3), torch.zeros(4, 3)
    for step in (1, 2, 3):
        step_touched(expected, touching(step))
        gradient = torch.randn(4, 3, generator=generator(step))
        adam_step([matrix], [gradient], [moments[0]], [moments[1]], lr=[0.02], step=step, beta2=0.99)
    descend(adam, 1, 3)
    assert torch.equal(adam.parameters["table"], table)
    assert torch.equal(adam.parameters["matrix"], matrix)


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    whole, first, second = optimiser(), optimiser(), optimiser()
    descend(whole, 1, 8)
    descend(first, 1, 5)
    stored = {"count": first.state()["count"], "moments": first.state()["moments"]}
    with torch.no_grad():
        for name, parameter in second.parameters.items():
            parameter.copy_(first.parameters[name])
    second.restore(stored)
    descend(first, 20, 1)  # what was stored is a copy now
    descend(second, 6, 3)
    for name, parameter in whole.parameters.items():
        assert torch.equal(parameter, second.parameters[name])
        assert all(map(torch.equal, whole.moments[name], second.moments[name]))
    assert torch.equal(whole.counts["table"], second.counts["table"])
    assert whole.count == second.count


def test_a_table_cannot_be_replaced() -> None:
    adam = optimiser()
    with pytest.raises(ValueError, match="expected a parameter that is not among `touched`, got 'table'"):
        adam.replace("table", torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3, 2))
