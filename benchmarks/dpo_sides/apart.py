"""One figure of one side, measured by this very command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import typer


def figure(option: str, side: str, arguments: Sequence[str], environment: Mapping[str, str]) -> float | None:
    """What the command prints last.

    Args:
        option: The command's hidden option that asks for the figure.
        side: Workload and side, as that option takes them.
        arguments: What makes the command measure the same sizes.
        environment: Besides this process's.

    Returns:
        The figure; None where the system ended the process, which Linux does when memory runs out.

    Raises:
        BadParameter: the process failed otherwise.
    """
    command = [sys.executable, sys.argv[0], option, side, *arguments]
    given = {**os.environ, **environment}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)  # noqa: S603 - this very file
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise typer.BadParameter(f"measuring {side} failed: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])
