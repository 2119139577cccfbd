"""`rlhi-eval human`: a local page on which people judge stored answers, blind."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhi_plugin import terminal
from rlhi_plugin.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from rlhi_eval_harness.human.planning import Wishes
    from rlhi_eval_harness.human.records import Study

DEFAULT_PORT = 7861


def add_to(app: typer.Typer) -> None:
    """Mount ``human`` on a command line."""
    app.command(epilog="Example: rlhi-eval human report/ --subject base --subject adapter+persona --items 50")(human)


def human(  # noqa: PLR0917 - typer turns every parameter into an option
    folder: Annotated[Path, typer.Argument(help="Folder of an evaluation whose answers are stored.")],
    study: Annotated[str, typer.Option(help="Name of the study; another name is another study.")] = "main",
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Give two. Default: the first one, and adapter+persona or the only other one."),
    ] = None,
    dimension: Annotated[
        list[str] | None, typer.Option(help="What is asked about each pair; default: all that the suite has.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Number of pairs, drawn by the seed; default: all.")] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, help="Raters that every pair is to have; further ones are spread. Default: 2.")
    ] = None,
    check_every: Annotated[
        int | None,
        typer.Option(help="An attention check after so many verdicts, 2 or more; 0 is none. Default: 10."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of which pairs, their order, and the sides. Default: 0.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = DEFAULT_PORT,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log what happens inside.")] = False,  # noqa: ARG001 - read by rlhi_plugin.terminal before typer runs
) -> None:
    """Let people judge the stored answers of two subjects, blind, in the browser; Ctrl-C ends it, what is said is kept.

    Given again without options, it goes on where it stopped. `rlhi-eval score FOLDER` puts the verdicts in the report.
    """
    from rlhi_eval_harness.human.planning import Wishes

    if check_every == 1 or (check_every or 0) < 0:
        raise ConfigError(f"--check-every {check_every}: give 0 for no checks, or 2 or more.")
    if find_spec("gradio") is None:
        raise MissingExtraError("gradio", "human")
    wishes = Wishes(tuple(subject or ()), tuple(dimension or ()), items, overlap, check_every, seed)
    _serve(folder, study, wishes, port)


def _serve(path: Path, name: str, wishes: Wishes, port: int) -> None:
    from rlhi_eval_harness.evaluate import read_stored
    from rlhi_eval_harness.human.desk import Desk
    from rlhi_eval_harness.human.planning import VERDICTS, open_study, pairs_of, study_folder
    from rlhi_eval_harness.human.verdict_file import VerdictFile, held
    from rlhi_eval_harness.report.build import read_suite
    from rlhi_eval_harness.run_folder import RunFolder
    from rlhi_eval_harness.suites.kinds import open_kind

    folder = RunFolder(path)
    kind = open_kind(read_suite(folder))
    stored = read_stored(folder)
    place = study_folder(folder, name)
    try:
        study = open_study(folder, name, kind, stored, wishes)
        with held(place):
            file = VerdictFile(place / VERDICTS)
            pairs, _ = pairs_of(stored, study.subject, study.versus)
            _announce(study, len(file.lines))
            _check_port(port)
            from rlhi_eval_harness.human.page import serve

            try:
                serve(Desk(study, pairs, file), port, _show_address)
            finally:
                file.close()
                terminal.stdout.print(f"verdicts: {place / VERDICTS}", markup=False, highlight=False)
                terminal.stdout.print(f"into the report: rlhi-eval score {path}", markup=False, highlight=False)
    except PermissionError as error:
        raise ConfigError(f"cannot write {error.filename or place}: {error.strerror}. Mend its permissions.") from error


def _announce(study: Study, lines: int) -> None:
    left_out = ", ".join(f"{reason} {count}" for reason, count in study.left_out.items())
    said = (
        f"study {study.name}: {study.subject} and {study.versus}, {len(study.items)} of {study.eligible} pairs, "
        f"{study.overlap} raters each, seed {study.seed}"
    )
    terminal.stdout.print(said, markup=False, highlight=False)
    if left_out:
        terminal.stdout.print(f"not shown: {left_out}", markup=False, highlight=False)
    if lines:
        terminal.stdout.print(f"going on: {lines} lines are there", markup=False, highlight=False)


def _show_address(address: str) -> None:
    terminal.stdout.print(f"open {address} (Ctrl-C ends it)", markup=False, highlight=False)
    terminal.stdout.file.flush()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(f"port {port} cannot be used: {error.strerror}. Give another with --port.") from error
