"""Which model this is: hashes of the files that decide its answers."""

import hashlib
from pathlib import Path

# What a run folder's answers depend on, calls and calibration included.
DECISIVE = ("recipe.json", "template*.png", "evaluation.json", "predictions.csv", "truth.csv", "split.csv", "*.onnx")


def of_file(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def of_model(path: Path) -> dict[str, str]:
    """Hashes of all that decides a model's answers, by file name below its folder.

    Args:
        path: a run folder, a `.keras` file in one, a SavedModel folder, or an `.onnx` file.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return {path.name: of_file(path)}
    home = path if path.is_dir() else path.parent
    if (home / "saved_model.pb").is_file():
        files = sorted(file for file in home.rglob("*") if file.is_file())
    else:
        model = path if path.suffix == ".keras" else home / "model.keras"
        files = sorted({model, *(file for pattern in DECISIVE for file in home.glob(pattern))})
    return {file.relative_to(home).as_posix(): of_file(file) for file in files if file.is_file()}
