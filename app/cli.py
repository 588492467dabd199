"""The command line: what each verb does, and errors in words with an exit code.

Torch is loaded only once the options are known to be good, so that help and usage errors come at once.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from anchorfield.app.arguments import colour, nearest_hint, parse, train_options, value_of
from anchorfield.app.options import (
    VERBS,
    Demo,
    Doctor,
    Edit,
    Eval,
    Export,
    FitImage,
    FitMesh,
    Mesh,
    Methods,
    Render,
    Train,
    View,
)

if TYPE_CHECKING:
    from anchorfield.app.export import Loss
    from anchorfield.app.run import Run
    from anchorfield.methods import Method

CANCELLED, MEMORY, DATA, USAGE, FAILED, DONE = 130, 4, 3, 2, 1, 0


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
        return _fail(f"unknown command '{verb}'.{nearest_hint(verb, VERBS)}", USAGE)
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


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        parse(Train, "train", ["-h"])
    base, settings, options = train_options(arguments)
    asked: dict[str, Any] = {
        "source": options.source,
        "method": options.method,
        "settings": settings,
        "steps": options.steps,
        "minutes": options.minutes,
        "seed": options.seed,
        "downscale": options.downscale,
        "split": options.split,
        "background": colour(options.background),
        "backend": options.backend,
        "out": options.out,
        "resume": options.resume,
        "base": base,
        "save_every": options.save_every,
    }
    if options.view:
        if options.source is None and not options.resume:
            return _fail("train --view needs the capture to train on", USAGE)
        from anchorfield.app.view.app import serve

        return serve([], host=options.host, port=options.port, train=asked)
    from anchorfield.app.journal import shown
    from anchorfield.app.training import train

    with shown(options.json) as show:
        train(**asked, show=show)
    return DONE


def _view(arguments: list[str]) -> int:
    options = parse(View, "view", arguments)
    from anchorfield.app.view.app import serve

    return serve(
        list(options.paths),
        host=options.host,
        port=options.port,
        compare=options.compare,
        window=options.window,
        scene=options.scene,
    )


def _open(options: Eval | Render | Export | Edit | Mesh) -> Run:
    from anchorfield.app import machine
    from anchorfield.app.run import Run

    machine.single_torch_thread()
    return Run.open(options.run, options.checkpoint, options.scene)


def _eval(arguments: list[str]) -> int:
    options = parse(Eval, "eval", arguments)
    run = _open(options)
    if options.report and not run.folder:
        return _fail("--report needs the folder of a run: a file holds no history", USAGE)
    from anchorfield.app import files
    from anchorfield.app.evaluation import evaluate
    from anchorfield.renderer import backends

    written = []
    with backends.using(options.backend):
        result = evaluate(run, lpips_weights=options.lpips_weights)
        if options.report:
            from anchorfield.app.report import write_report

            written.append(f"report: {write_report(run, result)}")
    if options.json:
        print(json.dumps(files.strict(result.to_json())))
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
    options = parse(Render, "render", arguments)
    chosen = [options.view is not None, options.test, options.orbit is not None, options.path is not None]
    if sum(chosen) != 1:
        return _fail("render needs one of --view NAME, --test, --orbit N, --path FILE", USAGE)
    run = _open(options)
    from anchorfield.app import pictures
    from anchorfield.renderer import backends

    name, cameras, fps = _cameras(run, options)
    if options.width is not None:
        if options.width < 1:
            return _fail(f"--width must be at least 1, got {options.width}", USAGE)
        cameras = [
            (label, c.resized(options.width, max(1, round(c.height * options.width / c.width)))) for label, c in cameras
        ]
    out = options.out or (run.folder or Path()) / "renders" / name
    with backends.using(options.backend):
        written = pictures.write(run.render, cameras, out, options.fps or fps)
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
        up = run.placed().up if options.frame == "placed" else None
        frames, fps = paths.orbit(run.scene, options.orbit, up), 30.0
    else:
        like = run.scene.views[run.scene.train[0]].camera
        path = paths.read(options.path or Path(), paths.fov_y(like), run.from_world, options.frame)
        frames, fps = path.cameras(like), path.fps
    name = "orbit.mp4" if options.orbit is not None else f"{Path(options.path or 'path').stem}.mp4"
    return name, [(f"{index:05d}", camera) for index, camera in enumerate(frames)], fps


def _export(arguments: list[str]) -> int:
    options = parse(Export, "export", arguments)
    if options.out is None:
        return _fail("export needs -o FILE; its ending says the format (.ply, .safetensors)", USAGE)
    from anchorfield.app import files
    from anchorfield.app.distil import Distillation
    from anchorfield.app.export import Loss, agreement, check_ending, export, loss

    check_ending(options.out)
    run = _open(options)
    asked = Distillation(options.seconds, options.steps, options.points, options.seed)
    made = export(run, options.out, options.frame, asked, None if options.json else _progress_line())
    count, size = made.count, options.out.stat().st_size
    measured = loss(run, options.out, options.frame, made) if options.check else None
    alike = agreement(run, made) if options.check and made.distilled and not isinstance(measured, Loss) else None
    splats = options.out.suffix.lower() == ".ply" or made.distilled
    if options.json:
        facts = {"file": str(options.out), "gaussians" if splats else "rows": count, "bytes": size}
        if splats:
            facts["frame"] = options.frame
        facts |= {"distilled": True} if made.distilled else {}
        facts |= {"agreement": alike} if alike is not None else {}
        print(json.dumps(files.strict(facts | _loss_facts(measured))))
        return DONE
    what = f"{count:,} Gaussians in the {options.frame} frame" if splats else f"a model of {count:,} rows"
    if made.distilled:
        what += f", distilled from a model of '{run.job.method}'"
    print(f"{options.out}: {what}, {size:,} bytes")
    if isinstance(measured, Loss) and made.distilled:
        print(f"PSNR {measured.agreement:.2f} dB of the Gaussians against the model's pictures of the held-out views")
    if alike is not None:
        print(f"PSNR {alike:.2f} dB of the Gaussians against the model's pictures between its training views")
    if isinstance(measured, Loss):
        print(f"PSNR {measured.model:.2f} dB of the model, {measured.file:.2f} dB of the file:", end=" ")
        print(f"{round(measured.loss, 2) + 0.0:.2f} dB lost over {measured.views} held-out views")
    elif measured:
        print(f"loss not measured: {measured}")
    return DONE


def _loss_facts(measured: Loss | str | None) -> dict[str, Any]:
    """What `export --json` says of the loss."""
    if measured is None or isinstance(measured, str):
        return {"loss": "not measured" + (f": {measured}" if measured else "")}
    found = {"loss": measured.loss, "psnr": measured.model, "file_psnr": measured.file, "views": measured.views}
    return found | {"agreement": measured.agreement}


def _edit(arguments: list[str]) -> int:
    options = parse(Edit, "edit", arguments)
    if options.script is None or options.out is None:
        return _fail("edit needs --script FILE with operations and -o FILE for the result", USAGE)
    from anchorfield.app import files
    from anchorfield.app.edit import writing

    writing.check_ending(options.out)
    script = writing.read_script(options.script)
    run = _open(options)
    editor = writing.edited(run, script, lambda text: print(f"warning: {text}", file=sys.stderr))
    writing.write(editor, run, options.out, options.frame)
    size, count = options.out.stat().st_size, len(editor.gaussians)
    if options.json:
        facts = {"file": str(options.out), "gaussians": count, "bytes": size, "steps": editor.history()}
        print(json.dumps(files.strict(facts)))
        return DONE
    print(*editor.history(), f"{options.out}: {count:,} Gaussians, {size:,} bytes", sep="\n")
    return DONE


def _mesh(arguments: list[str]) -> int:
    options = parse(Mesh, "mesh", arguments)
    if options.out is None:
        return _fail("mesh needs -o FILE; its ending says the format (.ply, .glb, .obj)", USAGE)
    from dataclasses import fields

    from anchorfield.app import mesh
    from anchorfield.renderer import backends
    from anchorfield.scenes.mesh_files import check_mesh_ending

    check_mesh_ending(options.out)
    names = [field.name for field in fields(mesh.MeshSettings)]
    settings = mesh.MeshSettings(**{name: getattr(options, name) for name in names})
    run = _open(options)
    with backends.using(options.backend):
        made = mesh.write(run, options.out, settings, options.frame, show=None if options.json else _progress_line())
    size = options.out.stat().st_size
    if options.json:
        facts = {"file": str(options.out), "faces": len(made), "vertices": len(made.vertices)}
        print(json.dumps(facts | {"bytes": size, "frame": options.frame}))
        return DONE
    print(f"{options.out}: {len(made):,} faces in the {options.frame} frame, {size:,} bytes")
    return DONE


def _fit_image(arguments: list[str]) -> int:
    options = parse(FitImage, "fit-image", arguments)
    if options.out is None:
        return _fail("fit-image needs -o FILE; its ending says the format (.png, .jpg, .webp)", USAGE)
    from dataclasses import asdict

    from anchorfield.app.fit_image import fit_image

    show = None if options.json else _progress_line()
    found = fit_image(options.image, options.out, options.seconds, options.size, options.seed, show)
    if options.json:
        print(json.dumps({"file": str(options.out)} | asdict(found)))
        return DONE
    print(f"{options.out}: PSNR {found.psnr:.2f} dB after {found.steps:,} steps in {found.seconds:.1f} s,", end=" ")
    print(f"{found.size_bytes:,} bytes of parameters in float16")
    return DONE


def _fit_mesh(arguments: list[str]) -> int:
    options = parse(FitMesh, "fit-mesh", arguments)
    if options.out is None:
        return _fail("fit-mesh needs -o FILE; its ending says the format (.ply, .glb, .obj)", USAGE)
    from dataclasses import asdict

    from anchorfield.app.fit_mesh import fit_mesh

    show = None if options.json else _progress_line()
    found = fit_mesh(options.mesh, options.out, options.seconds, options.size, options.resolution, show=show)
    if options.json:
        print(json.dumps({"file": str(options.out)} | asdict(found)))
        return DONE
    print(f"{options.out}: {found.faces:,} faces after {found.steps:,} steps in {found.seconds:.1f} s,", end=" ")
    print(f"{found.size_bytes:,} bytes of parameters in float16")
    for text, gap in (("from it to the mesh", found.to_source), ("from the mesh to it", found.from_source)):
        print(f"distance {text}: mean {gap.mean:.4f} %, 95th percentile {gap.p95:.4f} % of the diagonal")
    return DONE


def _progress_line() -> Callable[[float, str], None]:
    """Shows what is being done on one line of a terminal, at most some times a second; nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda share, text: None
    last = [0.0]

    def show(share: float, text: str) -> None:
        if share < 1 and time.monotonic() - last[0] < 0.2:
            return
        last[0] = time.monotonic()
        print(f"\r{share:4.0%} {text:<50}", end="\n" if share >= 1 else "", file=sys.stderr, flush=True)

    return show


def _methods(arguments: list[str]) -> int:
    options = parse(Methods, "methods", arguments)
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
    literal = get_origin(setting.annotation) is Literal
    kind = (
        "|".join(map(str, get_args(setting.annotation)))
        if literal
        else getattr(setting.annotation, "__name__", "value")
    )
    return f"{indent}--{setting.flag + ' ' + kind:<26} {setting.help} (default: {setting.default})"


def _doctor(arguments: list[str]) -> int:
    options = parse(Doctor, "doctor", arguments)
    from anchorfield.app import doctor

    found = doctor.examine()
    print(json.dumps(found) if options.json else "\n".join(doctor.lines(found)))
    return DONE


def _demo(arguments: list[str]) -> int:
    options = parse(Demo, "demo", arguments)
    from anchorfield.app.demo import demo
    from anchorfield.app.journal import shown

    with shown(options.json) as show:
        demo(options.capture, options.minutes, show)
    return DONE


RUNNERS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "render": _render,
    "view": _view,
    "export": _export,
    "edit": _edit,
    "mesh": _mesh,
    "fit-image": _fit_image,
    "fit-mesh": _fit_mesh,
    "methods": _methods,
    "doctor": _doctor,
    "demo": _demo,
}


def _explained(problem: Exception, arguments: list[str]) -> int:
    """Print what went wrong in words; returns the exit code."""
    from anchorfield.app.problems import disk_full, in_words, out_of_memory
    from anchorfield.renderer.errors import AnchorfieldError

    words = in_words(problem)
    if isinstance(problem, AnchorfieldError):
        return _fail(words, problem.exit_code)
    if out_of_memory(problem):
        return _fail(words, MEMORY)
    if disk_full(problem):
        return _fail(words, DATA)
    notes = getattr(problem, "__notes__", None)  # a run has written the traceback into its own log
    where = notes[-1] if notes else f"The full traceback is in {_write_traceback(problem, arguments)}"
    return _fail(f"{words}\n{where}", FAILED)


def _write_traceback(problem: Exception, arguments: list[str]) -> Path:
    """Append the traceback to the run's log where there is a run, else to a file for temporary things."""
    out = value_of(arguments, "out") or value_of(arguments, "o")
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


def _fail(text: str, code: int) -> int:
    print(f"anchorfield: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
