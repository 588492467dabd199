"""Have the kernels become slower? Compares time over floor with the committed baseline: `make bench-check`.

    python -m bench.check              exit code 1 where an operation needs more of its floor than noise explains
    python -m bench.check --update     measure, and make the result the baseline of this kind of machine

Time is compared as a multiple of the floor that the rates of this very moment allow, so that a slower machine, or one
that others use too, changes both. Baselines are kept per instruction set and number of threads.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from anchorfield.cuda_ext import native
from bench import _machine, _table, image, memory
from bench.__main__ import GROUPS
from bench._scenes import made

BASELINE = Path(__file__).parent / "baseline.json"
SCENES = ((30_000, 270, 480), (100_000, 540, 960))
MEMORY = (50_000, 300_000)  # Gaussians between which the memory of one is measured
TOLERANCE, DEVIATIONS = 0.25, 4.0  # a regression is slower by more than both
MOST_TOLERANCE = 0.6  # however noisy the machine is
MEMORY_TOLERANCE = 0.10
TRIES = 3  # a suspect is measured again: what others do to the machine rarely lasts
NOT_CHECKED = {"image"}  # its parts and its gradients are

Entry = Mapping[str, float]  # "ratio" and "deviation", or "bytes"


def allowed(base: Entry, now: Entry) -> float:
    """The greatest ratio that is no regression, by the spread of both measurements' rounds."""
    spread = math.hypot(base["deviation"], now["deviation"])
    return base["ratio"] * (1 + min(max(TOLERANCE, DEVIATIONS * spread), MOST_TOLERANCE))


def regressions(baseline: Mapping[str, Entry], found: Mapping[str, Entry]) -> list[str]:
    """A line for each operation that became slower or larger beyond the noise, or that is not measured any more."""
    lines = [f"{name}: in the baseline, but not measured" for name in baseline if name not in found]
    for name, now in found.items():
        base = baseline.get(name)
        if base is None:
            continue
        if "bytes" in now:
            if now["bytes"] > base["bytes"] * (1 + MEMORY_TOLERANCE):
                lines.append(f"{name}: {now['bytes']:,.0f} bytes, baseline {base['bytes']:,.0f}")
        elif now["ratio"] > (limit := allowed(base, now)):
            lines.append(
                f"{name}: {now['ratio']:.2f} times its floor, baseline {base['ratio']:.2f}, at most {limit:.2f}"
            )
    return lines


def merged(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> dict[str, Entry]:
    """The lower ratio of each entry: noise only ever adds."""
    result = dict(first)
    for name, entry in second.items():
        if name not in result or entry.get("ratio", 0) < result[name].get("ratio", 0):
            result[name] = entry
    return result


def measured(names: Iterable[str] | None = None) -> dict[str, Entry]:
    """Entries of all operations on the small set of scenes, or of the named ones."""
    wanted = None if names is None else set(names)
    found: dict[str, Entry] = {}
    for scene in SCENES:
        title = f"{scene[0]:,} at {scene[1]}x{scene[2]}"
        if wanted is not None and not any(name.endswith(title) for name in wanted):
            continue
        for row in _table.measured([g.operations for g in GROUPS if g is not image], made(*scene), 7, 0.15):
            if row.name not in NOT_CHECKED:
                found[f"{row.name}, {title}"] = {"ratio": round(row.ratio, 3), "deviation": round(row.deviation, 4)}
    return found


def memory_entry() -> dict[str, Entry]:
    """Bytes that a Gaussian adds to the peak of training."""
    peaks = {count: memory.peak(count, 540, 960) for count in MEMORY}
    return {"memory of a Gaussian": {"bytes": round(memory.per_gaussian(peaks))}}


def baselines() -> dict[str, Any]:
    """What is committed, by kind of machine."""
    content: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {}
    return content


def update() -> None:
    """Measure twice, keep the better of each, and write."""
    found = {**merged(measured(), measured()), **memory_entry()}
    content = {**baselines(), _machine.key(): found}
    BASELINE.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    print(f"{BASELINE.name}: {len(found)} entries for {_machine.key()}")


def check() -> int:
    """Compare with the baseline; the exit code."""
    baseline = baselines().get(_machine.key())
    if baseline is None:
        print(f"no baseline for {_machine.key()}: nothing to compare with. `make bench-baseline` makes one")
        return 0
    found = {**measured(), **memory_entry()}
    lines = regressions(baseline, found)
    for _ in range(TRIES - 1):
        if not lines:
            break
        found = merged(found, measured(line.split(":")[0] for line in lines))
        lines = regressions(baseline, found)
    for name, entry in sorted(found.items()):
        print(text(name, baseline.get(name), entry))
    print(f"\n{len(lines)} regressions" + "".join(f"\n  {line}" for line in lines))
    return 1 if lines else 0


def text(name: str, base: Entry | None, now: Entry) -> str:
    """A line of the comparison."""
    if "bytes" in now:
        return f"{name:<50}{now['bytes']:>12,.0f} bytes, baseline {base['bytes'] if base else 0:,.0f}"
    before = f"baseline {base['ratio']:8.2f}, at most {allowed(base, now):8.2f}" if base else "not in the baseline"
    return f"{name:<50}{now['ratio']:>8.2f} times its floor, {before}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help="make this measurement the baseline")
    parser.add_argument("--instruction-set", choices=native.instruction_sets(), default=native.instruction_set())
    arguments = parser.parse_args()
    _machine.one_torch_thread()
    native.set_instruction_set(arguments.instruction_set)
    print(_table.machine_line(), flush=True)
    if not arguments.update:
        return check()
    update()
    return 0


if __name__ == "__main__":
    sys.exit(main())
