"""The command line: help, flags, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_app_capture import SMALL, call, make_capture

from anchorfield import methods
from anchorfield.app import arguments as parser
from anchorfield.app import cli, job, options, settings
from anchorfield.renderer.errors import DataError, UsageError

FLAGS_WITH_STRATEGY = ["src", "--strategy", "Abs-Grad", "--threshold=0.5", "--sh_degree", "2"]


@pytest.mark.parametrize("verb", ["", *options.VERBS])
def test_help_fits_a_screen(verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = call(capsys, *([verb] if verb else []), "-h")
    assert code == 0
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 100


def test_help_and_usage_errors_load_no_torch() -> None:
    code = (
        "import sys; from anchorfield.app.cli import main; "
        "assert [main(['-h']), main(['eval', '-h']), main(['bogus'])] == [0, 0, 2]; assert 'torch' not in sys.modules"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert time.perf_counter() - start < 5  # about 0.4 s on an idle machine


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ""),
        (["trian"], 2, "Did you mean train?"),
        (["train"], 2, "say what to train on"),
        (["train", "nowhere", "-o", "{tmp}/run"], 3, "nowhere"),
        (["train", "nowhere", "--stategy", "adc"], 2, "Did you mean --strategy?"),
        (["train", "nowhere", "--strategy", "adk"], 2, "Did you mean adc?"),
        (["train", "nowhere", "--method", "gaussian_splating"], 2, "gaussian_splatting"),
        (["train", "nowhere", "--steps", "0"], 2, "at least 1"),
        (["train", "nowhere", "--steps", "x"], 2, "steps"),
        (["train", "nowhere", "--steps", "5", "--minutes", "1"], 2, "one of --steps and --minutes"),
        (["train", "nowhere", "--minutes", "nan"], 2, "positive"),
        (["train", "nowhere", "--downscale", "0"], 2, "downscale"),
        (["train", "nowhere", "--background", "pink"], 2, "white, black"),
        (["train", "nowhere", "--resume"], 2, "-o RUN_DIR"),
        (["train", "{tmp}", "-o", "{tmp}/run"], 3, "Looked for"),
        (["train", "nowhere", "-o", "/dev/null/run"], 3, "cannot write"),
        (["train", "nowhere", "--config", "{tmp}/none.json"], 3, "does not exist"),
        (["eval", "{tmp}"], 3, "not a run"),
        (["eval"], 2, "RUN_DIR"),
        (["export", "{tmp}", "-o", "x.obj"], 2, "Known: .ply"),
        (["export", "{tmp}"], 2, "-o FILE"),
        (["render", "{tmp}"], 2, "--orbit N"),
        (["render", "{tmp}", "--orbit", "3"], 3, "not a run"),
        (["methods", "gaussian_splating"], 2, "gaussian_splatting"),
    ],
)
def test_bad_input_has_words_and_a_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = call(capsys, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert found == code
    assert words in err.replace("\n", " ")
    assert "Traceback" not in out + err
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    code, _, err = call(capsys, "train", "nowhere", "-o", tmp_path)
    assert code == 2
    assert "--resume" in err


def test_out_of_memory_has_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._explained(MemoryError(), []) == 4
    assert cli._explained(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), []) == 4


def test_an_unexpected_error_leaves_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("nobody expects this")
    assert cli._explained(caught.value, ["train", "-o", str(tmp_path)]) == 1
    assert "nobody expects this" in (tmp_path / "log.txt").read_text()
    assert str(tmp_path / "log.txt") in capsys.readouterr().err


def test_settings_are_flat_flags_in_any_order() -> None:
    base, given, parsed = parser.train_options(FLAGS_WITH_STRATEGY)
    assert base is None
    assert given == {"strategy": "absgrad", "threshold": 0.5, "sh-degree": 2}
    assert parsed.source == Path("src")
    built = settings.apply(job.default_settings("gaussian_splatting"), given)
    assert settings.to_json(built)["strategy"]["type"] == "absgrad"
    assert settings.to_json(built)["strategy"]["threshold"] == 0.5


@pytest.mark.parametrize("name", methods.names())
def test_every_method_describes_itself_and_its_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "methods", "--json")
    assert name in json.loads(out)
    _, out, _ = call(capsys, "methods", name)
    for setting in settings.flatten(job.default_settings(name)):
        assert f"--{setting.flag}" in out
        assert setting.help, f"{setting.path} has no docstring"
    parser.with_settings(options.Train, [s for s in settings.flatten(job.default_settings(name)) if s.flag != "seed"])


@pytest.mark.parametrize("name", methods.names())
def test_settings_survive_json(name: str) -> None:
    default = job.default_settings(name)
    assert settings.from_json(type(default), json.loads(json.dumps(settings.to_json(default))), "here") == default


@dataclass(frozen=True)
class Wide:
    size: int = 3
    """How wide."""


@dataclass(frozen=True)
class Deep:
    size: int = 4
    levels: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must not be negative, got {self.size}")


@dataclass(frozen=True)
class Made:
    first: Wide | Deep = field(default_factory=Wide)
    second: Deep | None = None
    size: float = 1.0
    name: str = "x"


def test_choices_nest_and_equal_names_are_qualified() -> None:
    assert [s.flag for s in settings.flatten(Made())] == ["first", "first-size", "second", "size", "name"]
    built = settings.apply(Made(), {"first": "deep", "second": "deep", "name": "y"})
    assert built == Made(Deep(), Deep(), 1.0, "y")
    assert settings.apply(built, {"second": "none"}) == Made(Deep(), None, 1.0, "y")
    assert settings.from_json(Made, json.loads(json.dumps(settings.to_json(built))), "here") == built


def test_settings_that_are_out_of_range_or_unknown_are_told() -> None:
    with pytest.raises(UsageError, match="must not be negative, got -1"):
        settings.apply(Made(), {"first": "deep", "first-size": -1})
    with pytest.raises(UsageError, match="Did you mean name"):
        settings.apply(Made(), {"nam": "y"})
    with pytest.raises(DataError, match=r"here: unknown setting 'siz'\. Did you mean size"):
        settings.from_json(Made, {"siz": 3}, "here")
    with pytest.raises(DataError, match="'wild' is not one of wide, deep"):
        settings.from_json(Made, {"first": {"type": "wild"}}, "here")


def test_train_eval_export_render_print_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    code, out, _ = call(
        capsys, "train", make_capture(tmp_path / "made"), *SMALL, "--steps", 12, "--json", "-o", run, "--seed", 5
    )
    assert code == 0
    kinds = [json.loads(line)["event"] for line in out.splitlines()]
    assert {"start", "step", "evaluated", "saved", "end"} <= set(kinds)
    code, out, _ = call(capsys, "eval", run, "--json")
    scores = json.loads(out)
    assert code == 0
    assert scores["method"] == "gaussian_splatting"
    assert (scores["views"], scores["steps"], scores["seed"], scores["downscale"]) == (2, 12, 5, 1)
    assert scores["lpips"] == "not computed"
    assert scores["gaussians"] > 0
    assert scores["bytes"] > 0
    assert scores["seconds"] > 0
    assert 0 < scores["psnr"] < 60
    assert -1 <= scores["ssim"] <= 1
    low, high = scores["psnr_interval"]
    assert low <= scores["psnr"] <= high
    assert json.loads((run / "eval" / "metrics.json").read_text()).keys() == scores.keys()
    code, out, _ = call(capsys, "export", run, "-o", tmp_path / "splat.ply", "--json")
    assert json.loads(out)["gaussians"] == scores["gaussians"]
    code, out, _ = call(capsys, "render", run, "--test", "--json")
    assert json.loads(out)["frames"] == 2
    code, _, err = call(capsys, "render", run, "--view", "images/00x.png")
    assert code == 2
    assert "Did you mean images/00" in err
    code, _, err = call(capsys, "eval", run, "--lpips-weights", tmp_path / "none")
    assert code in (3, 5)


def test_doctor_says_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kernels"]["instruction_set"] in found["kernels"]["instruction_sets"]
    assert found["cuda"]["status"]
    assert set(found["optional"]) == {"gsplat", "tinycudann", "lpips"}
    code, out, _ = call(capsys, "doctor")
    assert "instruction set" in out
