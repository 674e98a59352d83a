"""The hooks by which gunicorn's workers keep their numbers as ours do: by slot, in files that outlive them.

A configuration file of gunicorn imports them; see ``examples/gunicorn.conf.py``. The application instruments
itself. There is no supervisor of ours, so each worker adds up the files when it is scraped. What is kept in no file
(``process_*``, custom collectors, ``Info``, ``Enum``, gauges with ``set_function``) is left out.

A configuration that cannot work ends gunicorn with a sentence. Which exception does so without a traceback differs from
hook to hook.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

from gunicorn.errors import AppImportError, HaltServer
from prometheus_client import REGISTRY

from hr_prometheus.exposition import view
from hr_prometheus.exposition.formats import choose_format
from hr_prometheus.exposition.scrape import Scrapes
from hr_prometheus.labels.fold import share_labels
from hr_prometheus.multiprocess.collector import MultiProcessCollector
from hr_prometheus.multiprocess.dump import dump_without_calls
from hr_prometheus.multiprocess.slots import Slots
from hr_prometheus.multiprocess.upkeep import keep_in_files, look_at_files
from hr_prometheus.multiprocess.value_class import VARIABLE, leave_multiprocess_mode
from hr_prometheus.workers.shared_file import create_shared_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from hr_prometheus.multiprocess.collector import Scrape

_slots: list[Slots] = []
#: The descriptor of the file by which the workers share their budget of labels.
_labels: list[int] = []
#: The slots of the workers, by their age, which is gunicorn's number for a worker.
_slot_of: dict[int, int] = {}


def on_starting(server: Any) -> None:
    """Make the directory for the numbers, in the master."""
    if server.cfg.preload_app:
        raise RuntimeError(
            "gunicorn's preload_app was set: metrics that are made before the workers are cannot be kept by worker. "
            "Leave it out."
        )
    for hook in (pre_fork, post_fork, child_exit, on_exit):
        if not _calls(getattr(server.cfg, hook.__name__), hook):
            server.log.warning(_missing_hook(hook.__name__))
    _slots.append(Slots(leave_multiprocess_mode()))
    _labels.append(create_shared_file("labels"))
    # For a mark_process_dead in the configuration, which needs it and does nothing there.
    os.environ[VARIABLE] = _slots[0].path


def pre_fork(server: Any, worker: Any) -> None:
    """Give a worker the first free slot, in the master."""
    if not _slots:
        raise HaltServer(_missing_hook("on_starting"))
    living = {each.age for each in server.WORKERS.values()}
    for age in _slot_of.keys() - living:  # the configuration has a child_exit of its own
        _free(age)
    slot = next(slot for slot in count() if slot not in _slot_of.values())
    _slots[0].reclaim(slot)
    _slot_of[worker.age] = slot


def post_fork(_server: Any, worker: Any) -> None:
    """Keep a worker's numbers in the files of its slot; runs in the worker, before it imports the application."""
    if worker.age not in _slot_of:
        raise AppImportError(_missing_hook("pre_fork"))
    directory, slot = _slots[0].path, _slot_of[worker.age]
    keep_in_files(directory, slot, totals_at="the route of hrprometheus_view")
    share_labels(_labels[0])
    collector = MultiProcessCollector(directory, is_compacting=False)

    async def gather() -> Scrape:
        await look_at_files()
        return collector.scrape({slot: dump_without_calls()})

    scrapes = Scrapes(REGISTRY, gather)

    async def scrape(accept: str, names: tuple[str, ...], is_gzip: bool) -> list[bytes]:
        return await scrapes.body(choose_format(accept, names), names, is_gzip=is_gzip)

    view.forward_to(scrape)


def child_exit(_server: Any, worker: Any) -> None:
    """Free the slot of a worker that has been waited for, in the master."""
    if worker.age in _slot_of:
        _free(worker.age)


def _free(age: int) -> None:
    _slots[0].reclaim(_slot_of.pop(age))


def on_exit(_server: Any) -> None:
    """Remove the directory, in the master."""
    for slots in _slots:
        slots.remove()


def _calls(hook: Any, ours: Callable[..., None]) -> bool:
    """Whether a hook of the configuration is *ours*, or mentions it and so probably calls it."""
    code = getattr(hook, "__code__", None)
    if hook is ours or code is None:
        return True
    return any(name == ours.__name__ or hook.__globals__.get(name) is ours for name in code.co_names)


def _missing_hook(name: str) -> str:
    """Return the sentence for a configuration that has replaced a hook."""
    arguments = "server" if name.startswith("on_") else "server, worker"
    return (
        f'gunicorn\'s configuration has a "{name}" of its own in the place of that of hr_prometheus.workers.gunicorn. '
        f"Remove it, or call hr_prometheus.workers.gunicorn.{name}({arguments}) in it. mark_process_dead is not needed."
    )
