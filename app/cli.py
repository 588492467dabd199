"""The command line: one frozen dataclass per verb, read by tyro; a method's settings join `train` as flat flags."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

if TYPE_CHECKING:
    from anchorfield.app.job import Job
    from anchorfield.app.run import Run
    from anchorfield.methods import Method

T = TypeVar("T")
CANCELLED, MEMORY, DATA, USAGE, FAILED, DONE = 130, 4, 3, 2, 1, 0
WIDTH = 100  # columns of help where there is no terminal

Flag = FlagCreatePairsOff[bool]
Which = Annotated[str, arg(metavar="last|best|STEP", help_behavior_hint="(default: last)")]
RunFolder = Annotated[Positional[Path], arg(metavar="RUN_DIR", help_behavior_hint="")]


def _option(metavar: str, hint: str = "", *aliases: str) -> Any:
    return arg(metavar=metavar, help_behavior_hint=hint, aliases=aliases or None)


@dataclass(frozen=True)
class Train:
    """Train a scene from a capture. A method's own settings are flags too: see `anchorfield methods NAME`."""

    source: Annotated[Positional[Path | None], _option("SRC")] = None
    """Folder of the capture, or a transforms.json."""
    method: Annotated[str | None, _option("NAME", "(default: gaussian_splatting)")] = None
    """Method, see `anchorfield methods`."""
    minutes: Annotated[float | None, _option("M", "(default: 10)")] = None
    """Training time, without evaluation and saving."""
    steps: Annotated[int | None, _option("N")] = None
    """Number of steps instead of a time; reproducible bit for bit."""
    downscale: Annotated[int | None, _option("K", "(default: 1)")] = None
    """Divide the images' width and height by K."""
    seed: Annotated[int | None, _option("S", "(default: 0)")] = None
    """Seed of every random choice."""
    split: Annotated[str | None, _option("auto|all|N", "(default: auto)")] = None
    """Held-out views: the capture's own, else every 8th; none; or every Nth."""
    background: Annotated[str | None, _option("COLOUR")] = None
    """Behind transparent pixels: white, black or R,G,B in 0..1."""
    out: Annotated[Path | None, _option("RUN_DIR", "(default: runs/SCENE/METHOD-TIME)", "-o")] = None
    """Folder for the run."""
    resume: Flag = False
    """Continue the run in RUN_DIR from its newest checkpoint; steps or minutes may grow."""
    config: Annotated[Path | None, _option("FILE")] = None
    """Take everything that is not given from a run's config.json."""
    save_every: Annotated[float, _option("SECONDS", "(default: 60)")] = 60.0
    """Time between two checkpoints."""
    json: Flag = False
    """Print events as JSON lines."""


@dataclass(frozen=True)
class Eval:
    """Score a run on the held-out views of its capture."""

    run: RunFolder
    """Folder of the run."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    lpips_weights: Annotated[Path | None, _option("FILE")] = None
    """Weights of lpips.LPIPS (safetensors) to compute LPIPS with."""
    report: Flag = False
    """Write eval/report.html anew."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Render:
    """Render views, an orbit or a camera path to pictures (a file or a folder) or an MP4."""

    run: RunFolder
    """Folder of the run."""
    view: Annotated[str | None, _option("NAME|INDEX")] = None
    """One view of the capture."""
    test: Flag = False
    """The held-out views."""
    orbit: Annotated[int | None, _option("N")] = None
    """N frames around the scene."""
    path: Annotated[Path | None, _option("FILE")] = None
    """Camera keyframes (JSON; the format is in the documentation)."""
    out: Annotated[Path | None, _option("FILE|DIR", "(default: in RUN_DIR/renders)", "-o")] = None
    """By ending: .png, .jpg, .webp, .mp4, or a folder."""
    width: Annotated[int | None, _option("PIXELS")] = None
    """Width of the pictures instead of the training images'."""
    fps: Annotated[float | None, _option("F", "(default: 30, or the path's own)")] = None
    """Frames a second of a video."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Export:
    """Write a run's scene for other programs, by the file's ending (.ply)."""

    run: RunFolder
    """Folder of the run."""
    out: Annotated[Path | None, _option("FILE", "(required)", "-o")] = None
    """File to write."""
    frame: Literal["source", "local"] = "source"
    """The capture's own coordinates, or those of the training."""
    checkpoint: Which = "last"
    """Which checkpoint."""
    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Methods:
    """List the methods, or the settings of one."""

    name: Annotated[Positional[str | None], _option("NAME")] = None
    """A method."""
    json: Flag = False
    """Print JSON."""


@dataclass(frozen=True)
class Doctor:
    """What runs on this machine, and why the rest does not."""

    json: Flag = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Demo:
    """Train a capture for a few minutes; leave splat.ply and report.html here."""

    capture: Annotated[Positional[Path], _option("SRC")] = Path("assets/sample")
    """Folder of the capture."""
    minutes: Annotated[float, _option("M", "(default: 3.2)")] = 3.2
    """Training time."""
    json: Flag = False
    """Print events as JSON lines."""


VERBS: dict[str, type] = {
    "train": Train,
    "eval": Eval,
    "render": Render,
    "export": Export,
    "methods": Methods,
    "doctor": Doctor,
    "demo": Demo,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code and never raises for what a user can cause."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except SystemExit as leaving:  # tyro has printed help or an error
        return leaving.code if isinstance(leaving.code, int) else FAILED
    except KeyboardInterrupt:
        return _fail("cancelled", CANCELLED)
    except BrokenPipeError:  # the reader of our output is gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as problem:
        return _explained(problem, arguments)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return DONE if arguments else USAGE
    if arguments[0] in ("-V", "--version"):
        from anchorfield.app.machine import version

        print(f"anchorfield {version()}")
        return DONE
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        return _fail(f"unknown command '{verb}'.{_nearest(verb, VERBS)}", USAGE)
    warnings.showwarning = lambda message, *rest: print(f"warning: {message}", file=sys.stderr)
    run: Callable[[list[str]], int] = RUNNERS[verb]
    return run(rest)


def _overview() -> str:
    rows = [f"  {name:<9} {(cls.__doc__ or '').split('. ')[0].rstrip('.')}" for name, cls in VERBS.items()]
    return "\n".join(
        [
            "usage: anchorfield COMMAND ...      (anchorfield COMMAND -h explains a command)",
            "",
            "Photographs to 3D scenes: Gaussian splatting and neural fields on any machine.",
            "",
            *rows,
            "",
            "exit codes: 0 done, 2 usage, 3 data, 4 memory, 5 missing backend, 130 cancelled",
        ]
    )


def _parse(cls: type[T], verb: str, arguments: list[str]) -> T:
    """The verb's options; leaves with exit code 2 and the nearest known flag where one is unknown."""
    _check_flags(cls, arguments)
    os.environ.setdefault("COLUMNS", str(WIDTH))
    config = (tyro.conf.HelptextFromCommentsOff,)
    return tyro.cli(cls, prog=f"anchorfield {verb}", args=arguments, config=config)


def _check_flags(cls: type, arguments: list[str]) -> None:
    known = {"help"}
    for field in dataclasses.fields(cls):
        name = field.name.replace("_", "-")
        known |= {name, f"no-{name}"} if field.type in (bool, "bool") else {name}
    for argument in arguments:
        if argument == "--":
            return
        name = argument[2:].split("=")[0].replace("_", "-")
        if argument.startswith("--") and name not in known:
            from anchorfield.renderer.errors import UsageError

            raise UsageError(f"unknown flag --{name}.{_nearest(name, known, '--')}")


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        _parse(Train, "train", ["-h"])
    base, settings, options = _train_options(arguments)
    from anchorfield.app.journal import shown
    from anchorfield.app.training import train

    with shown(options.json) as show:
        train(
            options.source,
            options.method,
            settings=settings,
            steps=options.steps,
            minutes=options.minutes,
            seed=options.seed,
            downscale=options.downscale,
            split=options.split,
            background=_colour(options.background),
            out=options.out,
            resume=options.resume,
            base=base,
            save_every=options.save_every,
            show=show,
        )
    return DONE


def _train_options(arguments: list[str]) -> tuple[Job | None, dict[str, Any], Train]:
    """The job that gives the defaults, the method's settings that are given, and the other options."""
    from anchorfield.app import job
    from anchorfield.app import settings as flat

    base = _base_job(arguments)
    method = _value_of(arguments, "method") or (base.method if base else job.DEFAULT_METHOD)
    defaults = base.settings if base and base.method == method else job.default_settings(method)
    found = [s for s in flat.flatten(defaults, lambda flag: _value_of(arguments, flag)) if s.flag != "seed"]
    arguments = _canonical_choices(arguments, found)
    options: Any = _parse(_with_settings(Train, found), "train", arguments)
    names = {s.flag: s.flag.replace("-", "_") for s in found if _given(arguments, s.flag)}
    settings = {flag: getattr(options, name) for flag, name in names.items()}
    if options.source is None and base is None:
        from anchorfield.renderer.errors import UsageError

        raise UsageError("say what to train on: anchorfield train SRC, a folder with a capture")
    return base, settings, options


def _base_job(arguments: list[str]) -> Job | None:
    """The configuration that --config names, or that of the run that is resumed."""
    from anchorfield.app import job

    config, out = _value_of(arguments, "config"), _value_of(arguments, "out") or _value_of(arguments, "o")
    if config:
        return job.read(Path(config))
    kept = Path(out) / "config.json" if out and "--resume" in arguments else None
    return job.read(kept) if kept and kept.is_file() else None


def _with_settings(cls: type, settings: list[Any]) -> type:
    """The options of a verb joined by the flat settings of a method."""
    taken = {field.name for field in dataclasses.fields(cls)}
    fields = []
    for setting in settings:
        name = setting.flag.replace("-", "_")
        if name in taken:
            raise TypeError(f"the setting {'.'.join(setting.path)} has the name of an option of the command line")
        fields.append(
            (name, Annotated[setting.annotation, arg(help=setting.help)], dataclasses.field(default=setting.default))
        )
    return dataclasses.make_dataclass("TrainWithSettings", fields, bases=(cls,), frozen=True)


def _canonical_choices(arguments: list[str], settings: list[Any]) -> list[str]:
    """The arguments with names of choices as the parser knows them; an unknown one names the nearest."""
    from anchorfield.app import settings as flat

    result = list(arguments)
    for setting in settings:
        for index, argument in enumerate(arguments):
            name, separator, value = argument.partition("=")
            if name.replace("_", "-") not in (f"--{setting.flag}",):
                continue
            if separator:
                result[index] = f"{name}={flat.checked_choice(setting, value)}"
            elif index + 1 < len(arguments):
                result[index + 1] = flat.checked_choice(setting, arguments[index + 1])
    return result


def _value_of(arguments: list[str], flag: str) -> str | None:
    """The value behind a flag, before anything is parsed."""
    names = {f"--{flag}", f"--{flag.replace('-', '_')}", f"-{flag}" if len(flag) == 1 else f"--{flag}"}
    for index, argument in enumerate(arguments):
        name, separator, value = argument.partition("=")
        if name in names:
            return value if separator else (arguments[index + 1] if index + 1 < len(arguments) else None)
    return None


def _given(arguments: list[str], flag: str) -> bool:
    names = {argument.split("=")[0].replace("_", "-") for argument in arguments if argument.startswith("--")}
    return f"--{flag}" in names or f"--no-{flag}" in names


def _colour(text: str | None) -> tuple[float, float, float] | None:
    from anchorfield.renderer.errors import UsageError

    if text is None or text in ("white", "black"):
        return {None: None, "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}[text]
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--background is white, black or three numbers like 0.5,0.5,0.5; got '{text}'") from None
    if not all(0 <= part <= 1 for part in (red, green, blue)):
        raise UsageError(f"--background: the numbers must lie in 0..1, got '{text}'")
    return red, green, blue


def _open(path: Path, checkpoint: str) -> Run:
    from anchorfield.app import machine
    from anchorfield.app.run import Run

    machine.single_torch_thread()
    return Run.open(path, checkpoint)


def _eval(arguments: list[str]) -> int:
    options = _parse(Eval, "eval", arguments)
    run = _open(options.run, options.checkpoint)
    from anchorfield.app.evaluation import evaluate

    result = evaluate(run, lpips_weights=options.lpips_weights)
    written = []
    if options.report:
        from anchorfield.app.report import write_report

        written.append(f"report: {write_report(run, result)}")
    if options.json:
        print(json.dumps(_strict(result.to_json())))
        return DONE
    for score in result.scores:
        print(f"{score.psnr:7.2f} dB  SSIM {score.ssim:.4f}  {score.render_ms:7.1f} ms  {score.name}")
    summary = result.summary
    low, high = summary["psnr_interval"]
    lpips = summary["lpips"] if isinstance(summary["lpips"], str) else f"{summary['lpips']:.4f}"
    print(
        f"PSNR {summary['psnr']:.2f} dB ({low:.2f} to {high:.2f}), SSIM {summary['ssim']:.4f}, LPIPS {lpips},", end=" "
    )
    print(f"{summary['views']} held-out views")
    print("\n".join(written), end="\n" if written else "")
    return DONE


def _render(arguments: list[str]) -> int:
    options = _parse(Render, "render", arguments)
    chosen = [options.view is not None, options.test, options.orbit is not None, options.path is not None]
    if sum(chosen) != 1:
        return _fail("render needs one of --view NAME, --test, --orbit N, --path FILE", USAGE)
    run = _open(options.run, options.checkpoint)
    from anchorfield.app import pictures

    name, cameras, fps = _cameras(run, options)
    if options.width is not None:
        if options.width < 1:
            return _fail(f"--width must be at least 1, got {options.width}", USAGE)
        cameras = [
            (label, c.resized(options.width, max(1, round(c.height * options.width / c.width)))) for label, c in cameras
        ]
    out = options.out or run.path / "renders" / name
    written = pictures.write(run, cameras, out, options.fps or fps)
    if options.json:
        print(json.dumps({"files": [str(path) for path in written], "frames": len(cameras)}))
    else:
        print(f"{len(cameras)} frame{'s' * (len(cameras) > 1)} in {out}")
    return DONE


def _cameras(run: Run, options: Render) -> tuple[str, list[Any], float]:
    """A name for what is rendered, its named cameras, and the frames a second."""
    from anchorfield.app import paths

    if options.view is not None:
        name, camera = paths.view(run.scene, options.view)
        return f"{Path(name).stem}.png", [(name, camera)], 30.0
    if options.test:
        return "test", paths.held_out(run.scene), 2.0
    if options.orbit is not None:
        frames, fps = paths.orbit(run.scene, options.orbit), 30.0
    else:
        like = run.scene.views[run.scene.train[0]].camera
        frames, fps = paths.keyframes(options.path or Path(), like, run.source_from_world)
    name = "orbit.mp4" if options.orbit is not None else f"{Path(options.path or 'path').stem}.mp4"
    return name, [(f"{index:05d}", camera) for index, camera in enumerate(frames)], fps


def _export(arguments: list[str]) -> int:
    options = _parse(Export, "export", arguments)
    if options.out is None:
        return _fail("export needs -o FILE; its ending says the format (.ply)", USAGE)
    from anchorfield.app.export import check_ending, export

    check_ending(options.out)
    count = export(_open(options.run, options.checkpoint), options.out, options.frame)
    size = options.out.stat().st_size
    if options.json:
        facts = {"file": str(options.out), "gaussians": count, "bytes": size, "frame": options.frame}
        print(json.dumps(facts))
    else:
        print(f"{options.out}: {count:,} Gaussians in the {options.frame} frame, {size:,} bytes")
    return DONE


def _methods(arguments: list[str]) -> int:
    options = _parse(Methods, "methods", arguments)
    from anchorfield import methods

    if options.name is None:
        described = {name: methods.describe(name) for name in methods.names()}
        print(json.dumps(described) if options.json else "\n".join(f"{n:<20} {d}" for n, d in described.items()))
        return DONE
    from anchorfield.app import job
    from anchorfield.app import settings as flat

    rows = _settings_rows(job.default_settings(options.name))
    if options.json:
        print(json.dumps({"method": options.name, "settings": flat.to_json(job.default_settings(options.name))}))
        return DONE
    print(f"{options.name}: {methods.describe(options.name)}\n\nSettings, as flags of `anchorfield train`:")
    print("\n".join(rows))
    return DONE


def _settings_rows(settings: Method) -> list[str]:
    """A line per setting; those of a choice that is not the default stand under its name."""
    from typing import get_args, get_origin

    from anchorfield.app import settings as flat

    found = flat.flatten(settings)
    rows, shown = [_setting_row(setting, "  ") for setting in found], {setting.flag for setting in found}
    for choice in (setting for setting in found if get_origin(setting.annotation) is Literal):
        for name in get_args(choice.annotation):
            other = flat.flatten(settings, lambda flag, f=choice.flag, n=name: n if flag == f else None)  # type: ignore[misc]
            inside = [s for s in other if s.path[: len(choice.path)] == choice.path and s.path != choice.path]
            if name != choice.default and inside:
                rows += [f"  with --{choice.flag} {name}:", *(_setting_row(s, "    ") for s in inside)]
                shown |= {s.flag for s in inside}
    return rows


def _setting_row(setting: Any, indent: str) -> str:
    from typing import get_args, get_origin

    literal = get_origin(setting.annotation) is Literal
    kind = (
        "|".join(map(str, get_args(setting.annotation)))
        if literal
        else getattr(setting.annotation, "__name__", "value")
    )
    return f"{indent}--{setting.flag + ' ' + kind:<26} {setting.help} (default: {setting.default})"


def _doctor(arguments: list[str]) -> int:
    options = _parse(Doctor, "doctor", arguments)
    from anchorfield.app import doctor

    found = doctor.examine()
    print(json.dumps(found) if options.json else "\n".join(doctor.lines(found)))
    return DONE


def _demo(arguments: list[str]) -> int:
    options = _parse(Demo, "demo", arguments)
    from anchorfield.app.demo import demo
    from anchorfield.app.journal import shown

    with shown(options.json) as show:
        demo(options.capture, options.minutes, show)
    return DONE


RUNNERS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "render": _render,
    "export": _export,
    "methods": _methods,
    "doctor": _doctor,
    "demo": _demo,
}


def _explained(problem: Exception, arguments: list[str]) -> int:
    """Print what went wrong in words; returns the exit code."""
    from anchorfield.renderer.errors import AnchorfieldError

    if isinstance(problem, AnchorfieldError):
        return _fail(str(problem), problem.exit_code)
    if _out_of_memory(problem):
        return _fail("out of memory: use --downscale 2, a smaller --cap, or close other programs", MEMORY)
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _fail(f"no space left: {problem}. Free some space; what was saved before is unchanged", DATA)
    log = _write_traceback(problem, arguments)
    return _fail(f"unexpected error: {type(problem).__name__}: {problem}\nThe full traceback is in {log}", FAILED)


def _out_of_memory(problem: BaseException) -> bool:
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return True
    return isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem)


def _write_traceback(problem: Exception, arguments: list[str]) -> Path:
    """Append the traceback to the run's log where there is a run, else to a file for temporary things."""
    out = _value_of(arguments, "out") or _value_of(arguments, "o")
    candidates = [Path(out) / "log.txt"] if out and Path(out).is_dir() else []
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {arguments}\n" + "".join(traceback.format_exception(problem))
    for path in (*candidates, Path(tempfile.gettempdir()) / f"anchorfield-{os.getpid()}.log"):
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
            return path
        except OSError:
            continue
    return Path(os.devnull)


def _strict(value: Any) -> Any:
    """JSON knows no infinity: an infinite PSNR becomes the text "inf"."""
    if isinstance(value, dict):
        return {name: _strict(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_strict(entry) for entry in value]
    return str(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def _nearest(name: str, known: Any, prefix: str = "") -> str:
    from anchorfield.app.settings import nearest

    return nearest(name, known, prefix)


def _fail(text: str, code: int) -> int:
    print(f"anchorfield: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
