from __future__ import annotations

import os

import pytest

from hr_prometheus.errors import ServingError
from hr_prometheus.server.pid_file import check_pid_file, hold_pid_file


@pytest.mark.parametrize("left", [None, "", "99999999\n"])
def test_a_file_is_held(tmp_path, left):
    """It has the number of this process and mode 644, whatever the umask and an earlier process have left, and goes with it."""
    file = tmp_path / "pid"
    if left is not None:
        file.write_text(left)
        file.chmod(0o600)
    umask = os.umask(0o077)
    try:
        with hold_pid_file(str(file)):
            assert file.read_text() == f"{os.getpid()}\n"
            assert file.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(umask)
    assert not file.exists()


def test_a_file_of_another_process_stays(tmp_path):
    """As where ours was removed, and another process has made its own."""
    file = tmp_path / "pid"
    with hold_pid_file(str(file)):
        file.unlink()
        file.write_text("1\n")
    assert file.read_text() == "1\n"
    with hold_pid_file(str(file)):
        file.unlink()
    assert not file.exists()


def test_a_link_stays(tmp_path):
    """The file that it leads to is the one that is made and removed."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with hold_pid_file(str(tmp_path / "link")):
        assert (tmp_path / "file").exists()
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "link").is_symlink()


def test_the_directory_may_change(tmp_path, monkeypatch):
    """The application may work in another one."""
    monkeypatch.chdir(tmp_path)
    with hold_pid_file("pid"):
        monkeypatch.chdir("/")
    assert not (tmp_path / "pid").exists()


def test_files_that_cannot_be_held(tmp_path):
    """Each is one sentence, and stays as it is."""
    (tmp_path / "app.py").write_text("import os\n")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in {
        "app.py": "there is a file of this name, and it has no process ID. Choose another one.",
        "pipe": "it is not a regular file. Choose another one.",
        "directory": "Is a directory. Expected a file in a directory that can be written to.",
        "none/pid": "No such file or directory. Expected a file in a directory that can be written to.",
        "app.py/pid": "Not a directory. Expected a file in a directory that can be written to.",
    }.items():
        with pytest.raises(ServingError) as caught, hold_pid_file(str(tmp_path / name)):
            pass
        assert str(caught.value) == f'--pid-file "{tmp_path / name}": {words}'
        with pytest.raises(ServingError) as checked:
            check_pid_file(str(tmp_path / name))
        assert str(checked.value) == str(caught.value)
    assert (tmp_path / "app.py").read_text() == "import os\n"


def test_a_check_makes_and_changes_no_file(tmp_path):
    """Of one that there is, and of one that there can be."""
    check_pid_file(None)
    with hold_pid_file(str(tmp_path / "held")):
        check_pid_file(str(tmp_path / "held"))
        assert (tmp_path / "held").read_text() == f"{os.getpid()}\n"
        check_pid_file(str(tmp_path / "new"))
        assert os.listdir(tmp_path) == ["held"]
