"""The whole loop on one machine: talk, log, learn, evaluate. Run it with ``make demo`` (or ``make demo SIZE=small``).

    1. an ordinary LangChain assistant, with one middleware, on a real model in this process
    2. simulated users talk with it and complain when an answer breaks a preference that they never spelled out
    3. `rlhi persona build`, `rlhi export`    follow-ups are labelled, personas built, the log exported
    4. `rlhi-train run`                       preference pairs and a persona-conditioned DPO LoRA adapter
    5. `rlhi-eval run`                        base, base + persona, adapter + persona on users and requests never seen
    6. `rlhi-adapters list`                   the adapter is registered, and answers one request beside its base
    7. what the numbers say, whatever they say, and where the report is

Every step leaves its files in the demo's folder; a second run reuses what is finished and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from rich.rule import Rule

from rlhi_adapters.digests import adapter_digests
from rlhi_adapters.langchain_model import LocalChatModel
from rlhi_adapters.local_client import LocalClient
from rlhi_adapters.local_model import LocalModel
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.simulation import ConversationSummary, Habits, converse, population, requests_for
from rlhi_plugin import RLHIMiddleware, open_store
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona import render_persona
from rlhi_plugin.terminal import progress, setup_logging, stdout, table

if TYPE_CHECKING:
    from rlhi_eval_harness.simulation import SimulatedUser


@dataclass(frozen=True)
class Size:
    """How much is talked, and which recipe and suite follow."""

    users: int
    habits: Habits
    recipe: str
    suite: str


SIZES = {
    "full": Size(32, Habits(threads_per_user=2, requests_per_thread=1, patience=1), recipe="demo", suite="smoke"),
    "small": Size(
        12, Habits(threads_per_user=2, requests_per_thread=1, patience=1), recipe="demo_small", suite="smoke_small"
    ),
    "tiny": Size(4, Habits(threads_per_user=2, requests_per_thread=1, patience=1), recipe="demo_small", suite="tiny"),
}


@dataclass(frozen=True)
class Demo:
    """Where everything is."""

    size: Size
    base: str
    out: Path
    seed: int

    @property
    def store(self) -> str:
        """URL of the assistant's conversation store."""
        return f"sqlite:///{self.out / 'assistant.db'}"

    @property
    def users(self) -> tuple[SimulatedUser, ...]:
        """Those who talk with the assistant; the evaluation has users of its own."""
        return population("train", self.size.users, seed=self.seed)


def main() -> None:
    """Run every step in order."""
    options = _arguments()
    demo = Demo(SIZES[options.size], options.base, options.out, options.seed)
    demo.out.mkdir(parents=True, exist_ok=True)
    # Pseudonyms are keyed. A key of the demo's own makes two runs comparable and leaves the user's key alone.
    os.environ.setdefault("RLHI_KEY", "de" * 32)
    os.environ["RLHI_REGISTRY"] = str((demo.out / "registry").resolve())
    setup_logging()
    started = time.monotonic()

    _step(1, f"an assistant with RLHIMiddleware on {demo.base}")
    _step(2, f"{len(demo.users)} simulated users talk with it, and complain")
    _talk(demo)
    _step(3, "label follow-ups, build personas, export")
    _command("rlhi", "persona", "build", "--store", demo.store)
    _command("rlhi", "status", "--store", demo.store)
    _command("rlhi", "export", "--store", demo.store, "--out", demo.out / "logs.jsonl")
    _step(4, "preference pairs and an adapter")
    run = demo.out / "run"
    _command(
        "rlhi-train", "run", demo.out / "logs.jsonl", "--recipe", demo.size.recipe, "--out", run,
        "--set", f"model.base={json.dumps(demo.base)}",
        "--set", f"seed={demo.seed}", "--set", f"train.seed={demo.seed}",
    )  # fmt: skip
    _step(5, "held-out users, held-out requests, checked by code")
    report = _report_folder(demo, run / "adapter")
    _command(
        "rlhi-eval", "run", "--suite", demo.size.suite, "--adapter", run / "adapter", "--out", report,
        "--set", f"seed={demo.seed}",
    )  # fmt: skip
    _step(6, "registered, and one request before and after")
    _command("rlhi-adapters", "list")
    _before_and_after(demo, run / "adapter")
    _step(7, "what the numbers say")
    for finding in EvalReport.model_validate_json((report / "report.json").read_text("utf-8")).findings:
        stdout.print(f"- {finding}", markup=False, highlight=False)
    minutes = (time.monotonic() - started) / 60
    stdout.print(f"\n{minutes:.1f} minutes. Open in a browser: {report / 'report.html'}", markup=False, highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: make demo SIZE=small",
    )
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the demo; reused when it exists")
    parser.add_argument("--seed", type=int, default=7, help="of users, sampling, training and evaluation")
    parser.add_argument("--base", default="smollm2-135m-instruct", help="embedded model, hub id or folder")
    return parser.parse_args()


def _talk(demo: Demo) -> None:
    """Steps 1 and 2. A conversation that was cut off is held again: half of it would be another one."""
    done = demo.out / "conversations.json"
    if done.exists():
        stdout.print(f"reused: {done} (delete {demo.out} to start over)", markup=False, highlight=False)
    else:
        for left_over in demo.out.glob("assistant.db*"):
            left_over.unlink()
        model = LocalModel.load(demo.base, on_status=lambda text: stdout.print(text, markup=False, highlight=False))
        with LocalClient(model) as client:
            agent = _assistant(client, RLHIMiddleware(store=demo.store, persona="off"), demo.seed)
            total = len(demo.users) * demo.size.habits.requests_per_user
            with progress("users talk", total) as advance:
                summary = converse(
                    agent,
                    demo.users,
                    requests_for("training"),
                    habits=demo.size.habits,
                    seed=demo.seed,
                    on_progress=advance,
                )
        done.write_text(summary.model_dump_json(indent=1), "utf-8")
    _show(ConversationSummary.model_validate_json(done.read_text("utf-8")))


def _assistant(client: LocalClient, middleware: RLHIMiddleware, seed: int) -> Any:
    """An ordinary LangChain assistant; the middleware is the only line that is ours."""
    return create_agent(
        LocalChatModel(client=client, seed=seed), tools=[], middleware=[middleware], checkpointer=InMemorySaver()
    )


def _show(summary: ConversationSummary) -> None:
    rows = [
        ("conversations", summary.threads),
        ("requests", summary.requests),
        ("answered as they like it at once", summary.satisfied_at_once),
        ("after complaints", summary.satisfied_later),
        ("complaints", summary.complaints),
    ]
    stdout.print(table("What the users found", ("", "count"), rows))
    complaint = next(said for said in summary.utterances if said.kind == "complaint")
    stdout.print(f'For instance: "{complaint.text}"', markup=False, highlight=False)


def _report_folder(demo: Demo, adapter: Path) -> Path:
    """Where the report goes. One of an adapter that has been trained anew since is put aside."""
    folder = demo.out / "report"
    config = folder / "run.json"
    if config.exists():
        earlier = json.loads(config.read_text("utf-8"))["models"]["weights_digest"]
        if earlier != adapter_digests(adapter).weights:
            aside = folder.with_name(f"report-of-{earlier[:8]}")
            stdout.print(f"the adapter is a new one; the earlier report is now {aside}", markup=False, highlight=False)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
    return folder


def _before_and_after(demo: Demo, adapter: Path) -> None:
    """The same assistant, user and request; first on the base, then with the adapter.

    What is said here goes to a log of its own: in the first one it would change what the next run learns from.
    """
    request = requests_for("held-out")[0]
    with open_store(demo.store) as store, open_store(f"sqlite:///{demo.out / 'tried.db'}") as tried:
        personas = {user.name: store.get_persona(pseudonym(user.name)) for user in demo.users}
        user, persona = max(personas.items(), key=lambda item: len(item[1].statements) if item[1] else 0)
        stdout.print(f"{render_persona(persona)}\n\nRequest: {request}", markup=False, highlight=False)
        model = LocalModel.load(demo.base, adapters={"learned": adapter})
        for title, name in (("before", None), ("after", "learned")):
            with LocalClient(model, adapter=name) as client:
                agent = _assistant(client, RLHIMiddleware(store=tried, persona_store=store), demo.seed)
                reply = agent.invoke(
                    {"messages": [("user", request)]},
                    config={"configurable": {"thread_id": f"{title}-{time.time_ns()}", "user_id": user}},
                )
            stdout.print(f"\n{title}: {reply['messages'][-1].text}", markup=False, highlight=False)


def _step(number: int, title: str) -> None:
    stdout.print(Rule(f"{number}. {title}", align="left"))


def _command(program: str, *arguments: str | Path) -> None:
    """Run one of our commands as a user would, and stop where it stops."""
    words = [str(argument) for argument in arguments]
    stdout.print(f"$ {program} {' '.join(words)}", style="bold", markup=False, highlight=False)
    sys.stdout.flush()
    done = subprocess.run([Path(sys.executable).with_name(program), *words], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
