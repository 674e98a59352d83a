"""What can go wrong before workers serve: as with one process, one sentence and the right code, and nothing is left."""

from __future__ import annotations

import subprocess

import pytest
from conftest import APPS, DEADLINE, RUN, clean_environment, hr_prometheus, read_line
from test_failures import FAILED, OWN_FAILURES, SENTENCES, USAGE
from workers import MARK, processes


@pytest.fixture
def failure(tmp_path):
    """Return the exit code and the error of workers that cannot serve; no process may be left."""

    def run(*arguments: str, **environment: str) -> tuple[int, str]:
        mark = str(tmp_path)
        done = hr_prometheus("run", "--port", "0", "--workers", "2", *arguments, **{MARK: mark, **environment})
        assert not processes(mark)
        assert "hr-prometheus: " not in done.stdout
        return done.returncode, done.stderr

    return run


def is_script(arguments: list[str]) -> bool:
    """Whether a command is about a script, which workers cannot serve."""
    return ":" not in arguments[-1]


@pytest.mark.parametrize(("arguments", "code", "sentence"), [each for each in SENTENCES if not is_script(each[0])])
def test_one_sentence(failure, arguments, code, sentence):
    """The same as of one process."""
    status, error = failure(*arguments)
    assert sentence.format(apps=APPS) in error
    assert error.count("\n") == 1, error
    assert status == code


@pytest.mark.parametrize(("target", "frame", "sentence"), [each for each in OWN_FAILURES if not is_script([each[0]])])
def test_the_applications_own_failure(failure, target, frame, sentence):
    """Its traceback once, whatever the number of workers."""
    status, error = failure(target)
    assert sentence in error
    assert frame in error
    assert "hr_prometheus/" not in error
    assert error.count("Traceback") <= 1
    assert error.count("\nError: ") == 1
    assert status == FAILED


def test_a_failing_start_up(failure):
    """One traceback and exit code 3."""
    status, error = failure("starting:startup_fails")
    assert status == FAILED
    assert error.count("Traceback") == 1
    assert 'Error: the application "starting:startup_fails" failed while it started up: ConnectionRefusedError' in error
    assert "hr_prometheus/" not in error


def test_a_failing_clean_up(serve):
    """It is the application's failure, as with one process; each worker shows its traceback."""
    service = serve("starting:cleanup_fails", "--workers", "1", "--port", "0")
    while not service.announcement.startswith("hr-prometheus: "):
        service.announcement = read_line(service.process)
    code, _, error = service.stop()
    assert code == FAILED
    assert error.count("Traceback") == 1
    assert 'Error: the application "starting:cleanup_fails" failed while it ran or stopped: RuntimeError' in error
    assert "hr_prometheus/" not in error


@pytest.mark.parametrize(("target", "status"), [("factories:exits", 0), ("factories:helps", 2)])
def test_an_application_may_exit_by_itself(failure, target, status):
    """It is not started again."""
    code, error = failure(target)
    assert code == status
    assert "Error:" not in error


def test_an_application_that_is_killed_while_it_starts(failure):
    """As by a kernel that is out of memory."""
    assert failure("many:killed_while_it_starts") == (
        FAILED,
        "Error: the application was ended by signal 9 (SIGKILL) while it started.\n",
    )


def test_a_first_start_that_hangs(failure):
    """It is the application's failure, after --boot-timeout."""
    code, error = failure("waiting:create_app", "--boot-timeout", "1", WAIT_FOR="/nowhere")
    assert code == FAILED
    assert error.startswith('Error: the application "waiting:create_app" has not started within 1 s')
    assert error.count("\n") == 1


def test_an_application_that_leaves_a_thread_behind(failure):
    """It does not keep the command from ending."""
    status, error = failure("many:create_app_and_thread")
    assert status == FAILED
    assert 'Error: "many:create_app_and_thread" failed while it made the application: RuntimeError' in error


@pytest.mark.parametrize("target", ["script.py", "script"])
def test_a_script_has_no_workers(failure, target):
    """Its addresses are not known before it runs."""
    assert failure(target) == (
        USAGE,
        f'Error: --workers: "{target}" is a script, whose addresses are known only when it has run. Expected a target '
        'with an attribute, "module:attribute".\n',
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--workers", "0"], 'Error: --workers "0" is not understood. Expected a number from 1 to 256, or auto'),
        (["--workers", "many"], 'Error: --workers "many" is not understood.'),
    ],
)
def test_wrong_options(failure, arguments, sentence):
    """A sentence and no process."""
    status, error = failure(*arguments, "served:app")
    assert (status, error.count("\n")) == (USAGE, 1)
    assert sentence in error


@pytest.mark.parametrize("option", [("--worker-timeout", "3"), ("--boot-timeout", "3"), ("--max-requests", "3")])
def test_options_of_workers_without_workers(option):
    """They would do nothing."""
    done = hr_prometheus("run", "served:app", *option)
    assert done.returncode == USAGE
    assert f"{option[0]} was given without --workers." in done.stderr


@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
def test_uvloop_that_is_not_installed(more, tmp_path):
    """The sentence says how to install it."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('no such module')\n")
    done = subprocess.run(  # not in a fork, which has imported it
        [*RUN, "served:app", "--loop", "uvloop", *more], cwd=APPS, env=clean_environment(PYTHONPATH=str(tmp_path)),
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == USAGE
    assert done.stderr == (
        'Error: --loop uvloop: uvloop is not installed. Install hr-prometheus with the extra "uvloop".\n'
    )


def test_no_room_for_the_numbers(failure, tmp_path):
    """A directory that cannot be made."""
    (tmp_path / "file").touch()
    status, error = failure("served:app", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "directory"))
    assert status == 1
    assert error.count("\n") == 1
    assert "the numbers of the workers cannot be kept" in error
