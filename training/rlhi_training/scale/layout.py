"""Which files a run in shards keeps, and what every worker is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from rlhi_training.recipe import Recipe
from rlhi_training.records import Stage
from rlhi_training.resources import Resources
from rlhi_training.run_directory import digest_of, write_atomically

_FORM = 5
"""Of the working files: what was left in another one is made again."""
MakeResources = Callable[[Recipe], Resources]
Summary = dict[str, Any]
"""What a part of the work says of itself: counts and small lists, as JSON holds them."""


@dataclass(frozen=True)
class Layout:
    """What every worker knows.

    Attributes:
        folder: Of all working files, in the run directory.
        recipe: The run's.
        shards: How many.
        make: Makes models and clients in a worker.
    """

    folder: Path
    recipe: Recipe
    shards: int
    make: MakeResources = Resources

    def block(self, number: int, kind: str) -> Path:
        """A file of one part of the log."""
        return self.folder / "blocks" / f"{number:06d}.{kind}"

    def shard(self, number: int, name: str) -> Path:
        """A file of one shard."""
        return shard_file(self.folder, number, name)

    def shard_of(self, user_id: str | None, conversation_id: str) -> int:
        """Where a conversation belongs: with its user's others, or, anonymous, anywhere."""
        name = f"u{user_id}" if user_id is not None else f"c{conversation_id}"
        return (
            int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % self.shards
        )

    def sampling_seed(self, stage: Stage) -> int:
        """As `Pipeline.sampling` has it."""
        return int(digest_of([self.recipe.seed, stage])[:8], 16)


def shard_file(folder: Path, number: int, name: str) -> Path:
    """A file of one shard of the run whose working files are in `folder`."""
    return folder / f"{number:05d}" / name


@lru_cache(maxsize=1)
def resources_here(make: MakeResources, recipe: str) -> Resources:
    """Models and clients of this process, made once."""
    return make(Recipe.model_validate_json(recipe))


def finished(
    marker: Path, digest: str, files: Mapping[str, Path] | tuple[Path, ...], work: Callable[[], Summary]
) -> Summary:
    """The summary of a piece of work: of the last time, where it was done with the same inputs; else it is done now.

    Args:
        marker: Written last; a piece without it counts as not done.
        digest: Of everything that the piece depends on.
        files: What it writes.
        work: Does it.
    """
    digest = f"{_FORM} {digest}"
    names = tuple(files.values()) if isinstance(files, Mapping) else files
    try:
        known = json.loads(marker.read_text("utf-8"))
        if known["digest"] == digest and known["sizes"] == [path.stat().st_size for path in names]:
            return cast("Summary", known["summary"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    marker.parent.mkdir(parents=True, exist_ok=True)
    summary = work()
    sizes = [path.stat().st_size for path in names]
    write_atomically(marker, json.dumps({"digest": digest, "sizes": sizes, "summary": summary}) + "\n")
    return summary
