"""Commands that show: report, watch, dashboard, spectra; and init, which writes a study.yaml."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from search.interruption import Interrupted
from search.options import JsonFlag, PresetName, StudyFolder
from search.phases import reporting


def mount(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(report)
    app.command()(spectra)
    app.command()(watch)
    app.command()(logs)
    app.command()(dashboard)
    app.command()(init)


def logs(
    folder: StudyFolder,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow until Ctrl-C.")] = False,
    worker: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Only this worker, by its name or a part of it, such as the host."),
    ] = None,
    last: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Number of lines to show."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the workers' logs: models loaded, trials started, finished and failed, with reasons.

    Example: laser-search logs ./my-study --follow
    """
    from search.report.logs import WorkerLogs, print_logs

    print_logs(WorkerLogs(folder, worker), typer.echo, last=last, follow=follow, as_json=as_json)


def report(
    folder: StudyFolder,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The file to write; by default report.html in the study folder."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what a study found as one HTML file: verdict, maps, history, examples, cost.

    The file loads nothing from the network. It also works for a running study.

    Example: laser-search report ./my-study --out report.html
    """
    from search.place import check_file
    from search.report.html import write_report
    from search.study.study_record import StudyRecord
    from tasks.errors import InputError

    path = folder / "report.html" if out is None else out
    check_file(path, "laser-search report</title>", "--out")
    record = StudyRecord.read(folder)
    try:
        write_report(record, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); choose another with --out"
        ) from None
    size = path.stat().st_size
    found = json.dumps({"report": str(path), "bytes": size})
    typer.echo(found if as_json else f"{path}: {size / 1e6:.1f} MB")


def spectra(
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Local folder or hub id; omit it to use only --factors."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("spectra"),
    factors: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A factor cache to take spectra from."),
    ] = None,
    address: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Matrices such as 27.fc_in or '*.fc_in'; may be repeated."),
    ] = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Also compare outputs on this task's inputs; needs MODEL."),
    ] = None,
    data: Annotated[Optional[str], typer.Option(help="The task's file or hub id.")] = None,  # noqa: UP045
    figures: Annotated[
        bool,
        typer.Option(
            "--figures/--no-figures", help="Draw the figures, which takes most of the time."
        ),
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Plot the singular values of a model's matrices, and estimate how much of them is noise.

    Writes spectra.html, spectra.parquet, snr.json (as laserRMT and spectrum have it) and figures.

    Example: laser-search spectra ./llama --address '*.fc_in' --out ./spectra
    """
    with reporting() as phases:
        phases.enter("loading the program")
        from search.model import ModelSource
        from search.place import check_folder
        from search.report.spectra import write_spectra
        from search.report.spectra_data import real_cosines, spectra_of_cache, spectra_of_model
        from search.sections import TaskConfig
        from tasks.errors import InputError

        chosen = address or []
        check_folder(out, "spectra.html", "<title>Spectra · laser-search</title>", "--out")
        real = {}
        if model is None:
            if factors is None or task is not None:
                raise InputError(
                    "give a model, or a factor cache with --factors (--task needs a model)"
                )
            found = spectra_of_cache(factors, chosen)
        else:
            source = ModelSource(model)
            found = spectra_of_model(source, chosen, factors, phases)
            names = [spectrum.name for spectrum in found]
            if task is not None:
                real = real_cosines(source, TaskConfig(name=task, data=data), names, phases)
        written = write_spectra(found, out, real, figures=figures, phases=phases)
    if as_json:
        typer.echo(json.dumps({"matrices": len(found), "files": [str(p) for p in written]}))
    else:
        typer.echo(f"{out / 'spectra.html'}: {len(found)} matrices")


def watch(
    folder: StudyFolder,
    once: Annotated[bool, typer.Option("--once", help="Show the state once and exit.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 2.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per update.")
    ] = False,
) -> None:
    """Follow a study that runs in another terminal or on another machine, until it is over.

    It reads the study's storage and changes nothing.

    Example: laser-search watch ./my-study
    """
    import time

    from search.report.live import facts, plain
    from search.report.watch import follow
    from search.report.watch import watch as show
    from search.terminal import Terminal

    if not once and not as_json:
        show(Terminal(markup=False, emoji=False), folder, interval)
        return
    for record in follow(folder):
        typer.echo(json.dumps(facts(record.summary)) if as_json else plain(record.summary))
        if once or record.is_over:
            return
        time.sleep(interval)


def dashboard(
    folder: StudyFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free port.")] = 8080,
) -> None:
    """Serve optuna-dashboard for a study on 127.0.0.1; needs the extra dashboard.

    The report, the result and the outcomes appear as the study's artefacts. It is read-only.

    Example: laser-search dashboard ./my-study --port 8080
    """
    from search.report.dashboard import HOST, open_server
    from search.study.study_record import StudyRecord

    with open_server(StudyRecord.read(folder), port) as server:
        typer.echo(f"http://{HOST}:{server.server_port}/  (Ctrl-C stops it)")
        try:
            server.serve_forever()
        except (KeyboardInterrupt, Interrupted):
            typer.echo("ended")


def init(
    out: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.yaml"),
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Local folder or hub id; asked for if it is not given."),
    ] = None,
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The task's name; asked for if --model is not given."),
    ] = None,
    data: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A local file or hub id."),
    ] = None,
    matrices: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Types or groups; by default fc_in,fc_out, with --kept all."),
    ] = None,
    kept: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="A budget: the share of the parameters that all matrices keep."),
    ] = None,
    cuts: Annotated[int, typer.Option(min=1, help="Cuts per composition, at most.")] = 3,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 200,
    worse_by: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            help="How much the perplexity of general text may rise; by default 0.01, which is 1 %, "
            "for language models without a budget."
        ),
    ] = None,
    unguarded: Annotated[
        bool, typer.Option("--unguarded", help="Set no limit on general text.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite the file.")] = False,
    preset: PresetName = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a commented study.yaml; asks for what the options do not give.

    With --preset NAME, writes the study that searches a published result; --model and --data may
    give other copies.

    Example: laser-search init study.yaml --model openai-community/gpt2 --task counterfact
    """
    from search.report.new_study import Answers, check_model, check_task, usual_limit, write_study

    if unguarded and worse_by is not None:
        from tasks.errors import InputError

        raise InputError("--unguarded and --worse-by contradict each other; use only one of them")

    if preset is not None:
        from search.presets import get_preset
        from search.report.new_study import LIMIT
        from search.report.preset_study import write_preset_study

        usual = LIMIT if worse_by is None else worse_by
        limit = None if unguarded else usual
        write_preset_study(get_preset(preset), out, model, data, limit, replace=replace)
        _say_written(out, as_json)
        return
    if model is None:
        model = typer.prompt("Model (a folder or a hub id)", value_proc=_asked(check_model))
        task = task or typer.prompt(
            "Task (laser-search tasks lists them)",
            default="jsonl",
            value_proc=_asked(check_task),
        )
        if data is None:
            own = "./questions.jsonl" if task == "jsonl" else ""
            what = "Questions, one JSON object a line" if own else "Data (empty: the task's own)"
            data = typer.prompt(what, default=own, show_default=bool(own)) or None
    named = matrices or ("fc_in,fc_out" if kept is None else "all")
    kinds = tuple(kind.strip() for kind in named.split(",") if kind.strip())
    task = task or "jsonl"
    if worse_by is None and not unguarded:
        worse_by = usual_limit(model, task, kept)
    answers = Answers(model, task, data, 0.2, kinds, cuts, kept, trials, worse_by=worse_by)
    write_study(answers, out, replace=replace)
    _say_written(out, as_json)


def _say_written(out: Path, as_json: bool) -> None:
    found = json.dumps({"study": str(out)})
    typer.echo(found if as_json else f"{out}: start it with laser-search launch {out}")


def _asked(check: Callable[[str], None]) -> Callable[[str], str]:
    """For a prompt: what `check` refuses is asked again, and other answers are kept."""
    from tasks.errors import InputError

    def value(text: str) -> str:
        try:
            check(text)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None
        return text

    return value
