"""The program: commands that run studies, and those of search."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from search import cli as search_cli
from search.interruption import Interrupted, Interruption, ending_of_command, interrupted_by, leave
from search.options import HeadName
from search.phases import reporting
from search.printable_output import printable_output
from search.verbosity import Program, Verbosity, current
from tasks.errors import InputError

if TYPE_CHECKING:  # they bring torch and transformers, which --help can do without
    from cluster.driver import End
    from cluster.launch.request import Request
    from cluster.view import StudyView
    from search.config import StudyConfig

app = Program(
    name="laser-search",
    help="Search for the rank reductions (LASER) that raise a transformer's accuracy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Ray's address, instead of cluster.address; `local`: this machine alone."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="KEY=VALUE, such as space.rho='[0.1,0.01]'; may be repeated."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("laser-search"))
        raise typer.Exit


@app.callback()
def _options(
    show: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Search for the rank reductions (LASER) that raise a transformer's accuracy."""


@app.command()
def launch(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The study's configuration, a YAML file.")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The study folder; by default next to STUDY and named after it."),
    ] = None,
    overrides: Overrides = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Short for --set search.trials=N."),
    ] = None,
    address: Address = None,
    again: Annotated[
        bool, typer.Option("--resume", help="Continue if the folder already contains this study.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Print what the study needs and how long it takes, and exit."),
    ] = False,
    on: Annotated[
        Optional[Literal["slurm", "kuberay", "ray-up"]],  # noqa: UP045
        typer.Option(help="Write a script that starts it there, instead of starting it here."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="With --on: number of machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="With --on: GPUs per machine.")] = 0,
    cpus_per_node: Annotated[
        int, typer.Option(min=0, help="With --on: CPUs per machine; 0 is the platform's default.")
    ] = 0,
    option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="With --on: NAME=VALUE, such as partition=gpu; may be repeated."),
    ] = None,
    setup: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="With --on slurm: a shell line to run first; may be repeated."),
    ] = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="With --on: the file to write; by default beside STUDY.yaml."),
    ] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="With --on slurm: submit it with sbatch.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a study: compute the factors, search, and score the best composition on test.

    It runs on this machine, or on the Ray cluster that --address gives. --on writes a script for
    another platform instead.

    Example: laser-search launch study.yaml --out my-study
    """
    from search.config import read_config

    changes = [*(overrides or []), *([] if trials is None else [f"search.trials={trials}"])]
    config = read_config(study, changes, os.environ)
    folder = out or study.with_suffix("")
    if plan:
        _foresee(config, as_json)
        return
    if on is not None:
        if changes:
            raise InputError(
                "--on writes a script that starts the file unchanged; put the values of --set and "
                f"--trials into {study}"
            )
        from cluster.launch.request import SPARE_S, Request, read_options

        request = Request(
            study,
            str(folder),
            nodes,
            gpus_per_node,
            cpus_per_node,
            round(config.cluster.grace_s) + SPARE_S,
            read_options(on, option or []),
            tuple(setup or ()),
        )
        _write_launcher(on, request, config, to, submit)
        return

    def begin(view: StudyView) -> End:
        from cluster.driver import launch as start
        from cluster.driver import resume as proceed

        if again and (folder / "study.json").exists():
            return proceed(folder, view, address)
        return start(config, folder, view, address, study)

    _run(begin, folder, as_json)


def _foresee(config: StudyConfig, as_json: bool) -> None:
    with reporting() as phases:
        phases.enter("loading the program")
        from cluster.forecast import workers_here
        from search.forecast import foresee
        from search.plan import make_plan

        phases.enter("reading the checkpoint")
        plan = make_plan(config)
        phases.enter("timing the start of a process")
        found = foresee(plan, workers_here(config.cluster, plan.held_bytes), phases)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in found.lines():
        typer.echo(line)


def _write_launcher(
    on: Literal["slurm", "kuberay", "ray-up"],
    request: Request,
    config: StudyConfig,
    to: Path | None,
    submit: bool,
) -> None:
    from cluster.launch import render
    from cluster.launch.request import local_paths
    from search.place import check_file

    if submit and on != "slurm":
        raise InputError(f"--submit works only with sbatch; run the commands for {on} by hand")
    path = to or render.default_file(on, request.study)
    check_file(path, f"# Written by laser-search launch --on {on}", "--to")
    lines = render.write(on, request, path)
    typer.echo(f"written: {path}")
    if render.holds_secret(on, request):
        typer.echo(f"note: {render.secret_note(on, path)}")
    if on != "slurm" and (local := local_paths(config)):
        typer.echo(f"note: the nodes must have {', '.join(local)} at the same path")
    if submit:
        typer.echo(render.submit(path))
        return
    for line in lines:
        typer.echo(f"run: {line}")


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")],
    trials: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A new number of trials: 300, or +100 for a hundred more."),
    ] = None,
    address: Address = None,
    accept_change: Annotated[
        bool,
        typer.Option(
            "--accept-change", help="Continue although versions or settings have changed."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Continue an interrupted study up to its number of trials.

    Example: laser-search resume my-study --trials +100
    """

    def proceed(view: StudyView) -> End:
        from cluster.driver import resume as go_on

        return go_on(folder, view, address, accept_change=accept_change, trials=trials)

    _run(proceed, folder, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The study folder.")] = Path("laser-demo"),
    as_json: JsonFlag = False,
) -> None:
    """Search a small model that ships with the program: no network, no GPU, two minutes.

    Example: laser-search demo
    """
    folder = _unused(out)
    if current() is not Verbosity.QUIET and not as_json:
        typer.echo(
            "The demo's model was made for this purpose: it was trained on texts about a small "
            "invented world,\nin which the true answer was often replaced with a generic word. It "
            "knows the facts, but often says\nthe generic word. The search looks for cuts that "
            "make it say what it knows."
        )

    def begin(view: StudyView) -> End:
        from cluster.driver import launch as start
        from search.demo.study import demo_config

        return start(demo_config(folder), folder, view)

    _run(begin, folder, as_json)


def _unused(folder: Path) -> Path:
    """`folder`, or the same with the first number that makes it new."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


@dataclass(frozen=True)
class _Course:
    """How a drive ended: with an `end`, or `stopped` for a reason, or by signal `number`."""

    end: End | None
    stopped: str | None
    number: int | None


def _drive(start: Callable[[], End], folder: Path) -> _Course:
    """Drive a study; what ends it early comes back in words, but for bad input, which is raised."""
    from search.study.storages import StorageLost, refusal

    try:
        end = start()
        return _Course(end, end.stopped, end.signal)
    except (InputError, typer.Exit):
        raise
    except StorageLost as error:
        return _Course(None, str(error), None)
    except (Exception, Interrupted) as error:
        if (asked := interrupted_by(error)) is not None:
            return _Course(None, None, asked.number)
        if isinstance(error, OSError) and str(error.filename or "").startswith(str(folder)):
            return _Course(None, refusal(Path(error.filename), error), None)
        raise


def _ended(course: _Course, folder: Path) -> End:
    """The end of a study that came to its end; else say why not, and exit with a code."""
    from cluster.driver import interruption

    stopped, number = course.stopped, course.number
    if stopped:
        typer.echo(f"stopped: {stopped}", err=True)
    if course.end is None or stopped or number:
        code, text = interruption(folder, 0 if stopped or number is None else number)
        typer.echo(text, err=code != 0)
        if number and not stopped:
            leave(code)
        raise typer.Exit(code)
    return course.end


def _run(start: Callable[[StudyView], End], folder: Path, as_json: bool) -> None:
    """Drive a study, showing its phases, and print the verdict."""
    with reporting() as phases:
        phases.enter("loading the program")
        import cluster.driver  # noqa: F401  # most of the start; a signal in it is the program's
        from cluster.view import StudyView

        course = _drive(lambda: start(StudyView(phases, folder)), folder)
    _print_end(_ended(course, folder), folder, as_json)


def _print_end(end: End, folder: Path, as_json: bool) -> None:
    from search.report.live import facts, plain
    from search.report.text import print_verdict
    from search.study.verdict_claim import advice
    from search.terminal import Terminal

    console = Terminal(markup=False, emoji=False)  # what models say may look like markup
    if as_json:
        found = {"study": str(folder), **facts(end.summary)}
        verdict = None if end.verdict is None else end.verdict.to_json()
        typer.echo(json.dumps({**found, "verdict": verdict}, indent=2, ensure_ascii=False))
        return
    console.print(plain(end.summary), highlight=False, markup=False, soft_wrap=True)
    if end.verdict:
        print_verdict(console, end.verdict, end.summary.objective)
    console.print(f"\nstudy: {folder}", highlight=False, soft_wrap=True)
    if end.verdict and current() is not Verbosity.QUIET:
        confirmed = end.verdict.finalists > 0
        for line in advice(end.verdict, folder, confirmed=confirmed):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def stop(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")],
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until it has stopped.")
    ] = 120.0,
    as_json: JsonFlag = False,
) -> None:
    """Stop a study, wherever it runs; trials in flight may finish first.

    Example: laser-search stop my-study
    """
    from cluster.stop import stop as ask

    said = ask(folder, wait)
    typer.echo(json.dumps({"message": said}) if as_json else said)


@app.command()
def decompose(
    model: Annotated[str, typer.Argument(help="Local folder or hub id.")],
    factors: Annotated[
        str,
        typer.Option(
            envvar="LASER_SEARCH_FACTORS",
            help="The factor cache, created if needed: a folder or a URL such as s3://b/p.",
        ),
    ],
    types: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Types or groups, such as fc_in,fc_out or mlp; all by default."),
    ] = None,
    address: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Addresses such as 27.fc_in or '*.mlp'; may be repeated."),
    ] = None,
    max_rho: Annotated[
        float, typer.Option(help="Fraction of the ranks to store; the spectrum is always complete.")
    ] = 1.0,
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="bfloat16 halves the files; products are then off by 0.24 %."),
    ] = "float32",
    kind: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Also compute factors for this kind of cut, such as whitened; may be repeated."
        ),
    ] = None,
    calibration: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Texts to calibrate on, for --kind whitened: a file or hub data set."),
    ] = None,
    head: HeadName = "auto",
    ray_address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A running Ray cluster; by default this machine."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compute the exact factors of a checkpoint's matrices, once for all studies.

    Example: laser-search decompose ./llama --factors ./factors --types mlp --max-rho 0.2
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from cluster.decompose import (
            calibration_for,
            choose,
            decompose_checkpoint,
            kinds_storing,
        )
        from search.model import ModelSource

        storing = kinds_storing(max_rho, dtype, kind or ())
        source = ModelSource(model, head_choice=head)
        names = [name for text in types or [] for name in text.split(",") if name]
        phases.enter("reading the checkpoint")
        matrices = choose(source, names, address or [])
        measured = calibration_for(source, matrices, storing, calibration)
        done = decompose_checkpoint(
            source, matrices, factors, storing, ray_address, phases, measured
        )
    if as_json:
        typer.echo(json.dumps({"factors": factors, **asdict(done)}))
        return
    typer.echo(
        f"{factors}: {done.computed} matrices decomposed in {done.seconds:.0f} s, "
        f"{done.ready} were ready"
    )


@app.command()
def track(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The study folder.")],
    to: Annotated[
        Literal["tensorboard", "mlflow", "wandb"],
        typer.Option(help="The service to send trials to."),
    ],
    where: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A folder (TensorBoard), a tracking URI (MLflow), a project (W&B)."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Send the finished trials and exit.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send finished trials to TensorBoard, MLflow or Weights & Biases, now or as they finish.

    Each trial is sent once. The study does not wait for it.

    Example: laser-search track ./my-study --to tensorboard
    """
    from cluster.track import track as follow

    count = follow(folder, to, where, once=once)
    typer.echo(json.dumps({"sent": count}) if as_json else f"{count} trials sent to {to}")


search_cli.mount(app)


@printable_output()
def main(*, alone: bool = False) -> None:
    """Run the program; bad input is one sentence and exit code 2, an end by a signal one too.

    `alone`: this process does nothing else, before or after.
    """
    from cluster.preemption import ending_of_start, hold_alarms

    if alone:
        hold_alarms()
    drives = sys.argv[1:2] in (["launch"], ["resume"], ["demo"])
    try:
        with Interruption(ending_of_start if drives else None, last=alone):
            app()
    except InputError as error:
        sys.stderr.write(f"laser-search: {error}\n")
        sys.exit(2)
    except (Exception, Interrupted) as error:
        if (asked := interrupted_by(error)) is None:
            raise
        if drives:
            code, text = ending_of_start(asked.number)
        else:
            code, text = ending_of_command(asked.number, asked.note)
        sys.stderr.write(f"{text}\n")
        leave(code)


if __name__ == "__main__":
    main(alone=True)
