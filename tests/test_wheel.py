"""The package as pip installs it: a wheel, in a clean environment, used from another folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def run(*arguments, cwd, **settings):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    answer = subprocess.run([str(argument) for argument in arguments], cwd=cwd, capture_output=True, text=True,
                            env=environment, timeout=600, **settings)
    assert answer.returncode == 0, answer.stdout[-1500:] + answer.stderr[-1500:]
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", REPOSITORY, "--no-deps", "-q", "-w", folder, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory) -> Path:
    """The folder of commands of an environment that has the wheel; its requirements are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    own = Path(run(scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                   cwd=folder).strip())
    run(sys.executable, "-m", "pip", f"--python={scripts / 'python'}", "install", "-q", "--no-deps", wheel, cwd=folder)
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return scripts


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "chexpert_hier").rglob("*.py")}
    modules |= {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("chexpert_hier/*/templates/*")}
    assert modules | {"chexpert_hier/films/data/detector.npz"} <= set(names)
    assert all(name.startswith("chexpert_hier") for name in names)


@pytest.mark.slow
def test_installed_commands_work_from_another_folder(scripts, tmp_path):
    place = run(scripts / "python", "-c", "import chexpert_hier; print(chexpert_hier.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(scripts.parent.resolve()) and str(REPOSITORY) not in place
    commands = sorted(scripts.glob("chexpert-hier-*"))
    assert len(commands) >= 9
    for command in commands:
        assert "usage:" in run(command, "--help", cwd=tmp_path)
    run(scripts / "chexpert-hier-phantom", "--out", tmp_path / "films", "--patients", "2", "--valid-patients", "2",
        cwd=tmp_path)
    told = run(scripts / "chexpert-hier-datasets", "films", cwd=tmp_path)
    assert "patients" in told
