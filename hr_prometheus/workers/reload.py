"""``--reload``: which files are watched, and what is done when they are saved."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import cache_from_source, find_spec
from typing import TYPE_CHECKING

from hr_prometheus.server.target import parse_target
from hr_prometheus.workers.file_watch import FileWatch
from hr_prometheus.workers.source_files import DEFAULT_PATTERNS, SourceFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: How many files the line of a reload names.
_MOST_NAMES = 3
#: From how many files on a look at them is worth a warning: it takes some milliseconds.
_MANY_FILES = 5000
_INSTALLED = ("site-packages", "dist-packages")


def source_files(settings: Settings) -> SourceFiles:
    """Return the files of the target's package, of ``app_dir`` and of ``reload_dirs``, as they are now."""
    directories = [settings.app_dir, *_directories_of(settings.target, settings.app_dir), *settings.reload_dirs]
    files = SourceFiles(directories, (*DEFAULT_PATTERNS, *settings.reload_include), settings.reload_exclude)
    if files.number > _MANY_FILES:
        places = ", ".join(f'"{each}"' for each in dict.fromkeys(map(os.path.abspath, directories)))
        logger.warning(
            "--reload watches %d files below %s, which takes time. Leave some out, for example with "
            "--reload-exclude DIRECTORY, or start in a smaller directory.",
            files.number,
            places,
        )
    return files


def _directories_of(text: str, app_dir: str) -> list[str]:
    """Return the directories of a target's outermost package, without importing it."""
    target = parse_target(text)
    if target.is_file:
        directory = os.path.dirname(os.path.abspath(target.module))
        while os.path.isfile(os.path.join(os.path.dirname(directory), "__init__.py")):
            directory = os.path.dirname(directory)
        return [directory]
    name = target.module.partition(".")[0]
    spec = PathFinder.find_spec(name, [os.path.abspath(app_dir), *sys.path]) or find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    directory = os.path.dirname(spec.origin or "")
    return [] if os.path.basename(directory) in _INSTALLED else [directory]


async def reload_at_saves(files: SourceFiles, needs_repair: Callable[[], bool], reload: Callable[[str], None]) -> None:
    """Call *reload* with words for what has changed, whenever *files* have.

    While the application *needs_repair* a save that changes nothing is enough, because what it lacks may be elsewhere.
    """
    async for saves in FileWatch(files).saves():
        if saves.changed:
            _forget_bytecode(saves.changed)
            reload(f"{_names(saves.changed)} changed")
        elif needs_repair():
            reload(f"{_names(saves.touched)} been saved")


def _forget_bytecode(paths: Sequence[str]) -> None:
    """Remove what Python has compiled from files: it takes that for fresh after a second save in one second, of the same size."""
    for path in paths:
        with suppress(OSError, NotImplementedError):
            os.unlink(cache_from_source(path))


def _names(paths: Sequence[str]) -> str:
    """Return the subject and auxiliary of a sentence about files."""
    names = [_shortest(path) for path in paths[:_MOST_NAMES]]
    more = len(paths) - len(names)
    if more:
        names.append(f"{more} more file{'s' * (more != 1)}")
    subject = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{subject} {'has' if len(paths) == 1 else 'have'}"


def _shortest(path: str) -> str:
    """Return a path as people write it: relative to the current directory if it is below that."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir + os.sep) else relative
