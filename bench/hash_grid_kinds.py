"""Hash grids of simplices against cubes, and of chosen rows against plain ones: `python -m bench.hash_grid_kinds`.

2^17 positions anywhere, 16 levels of 2 features, finest resolution 2048 (256 in four dimensions): the encoding and its
gradients to the table (with probes, and to the probabilities) and to the positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from bench import _machine
from bench._operations import backward, forward
from bench.hash_grid_plain import quartiles

COUNT = 2**17
SIZES = (14, 19)
FINEST = {2: 2048, 3: 2048, 4: 256}
PROBES, LOG2_INDEX_SIZE = 4, 14

Calls = tuple[Callable[[], object], ...]  # forward, backward to the table, backward to the positions


def calls(layout: HashGrid) -> Calls:
    """The encoding and its gradients, through torch as training calls them."""
    g = torch.Generator().manual_seed(0)
    positions = torch.rand(COUNT, layout.dimensions, generator=g).requires_grad_()
    table = torch.randn(layout.rows, layout.features, generator=g).requires_grad_()
    leaves, choice, probabilities = [table], None, None
    if layout.probes > 1:
        confidences = torch.randn(layout.index_rows, layout.probes, generator=g)
        choice, probabilities = confidences.argmax(1).byte(), confidences.softmax(1).requires_grad_()
        leaves.append(probabilities)

    def encode(at: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return hash_grid(at, numbers, layout, choice=choice, probabilities=probabilities)

    learned = encode(positions.detach(), table)
    if probabilities is not None:
        probabilities = probabilities.detach()
    moved = encode(positions, table.detach())
    return forward(lambda: encode(positions, table)), backward(learned, tuple(leaves)), backward(moved, (positions,))


def compare(title: str, layouts: dict[str, HashGrid]) -> None:
    """Prints a line: milliseconds of all, in turn, and times the first one's."""
    found = quartiles({name: calls(layout) for name, layout in layouts.items()})
    first = next(iter(found.values()))
    line = []
    for name, times in found.items():
        ratios = ", ".join(f"{mine / its:.2f}" for mine, its in zip(times, first, strict=True))
        line.append(f"{name} {' + '.join(f'{t:.1f}' for t in times)} ({ratios})")
    print(f"{title}: " + "; ".join(line), flush=True)


def main() -> None:
    _machine.one_torch_thread()
    what = "forward + backward to the table + to the positions"
    print(f"{_machine.key()}, load {_machine.load():.1f}; {what} in ms (times the first)")
    for d, finest in FINEST.items():
        for size in SIZES:
            cubes = HashGrid.up_to(finest, log2_table_size=size, dimensions=d)
            simplices = HashGrid.up_to(finest, log2_table_size=size, dimensions=d, interpolation="simplex")
            compare(f"{d} dimensions, 2^{size} rows", {"cubes": cubes, "simplices": simplices})
    for how in ("linear", "simplex"):
        plain = HashGrid.up_to(2048, log2_table_size=14, interpolation=how)
        probed = dataclasses.replace(plain, probes=PROBES, log2_index_size=LOG2_INDEX_SIZE)
        compare(f"3 dimensions, 2^14 rows, {how}", {"one row": plain, f"{PROBES} probes": probed})


if __name__ == "__main__":
    main()
