"""The arguments of every command that answers for films: which models, and what computes them."""

import argparse

from .members import ENGINES


def add_models(parser: argparse.ArgumentParser, where: str = "") -> None:
    """Add --model and --engine, as `predict.Engine.open` takes them.

    Args:
        parser: the command's.
        where: what else the models must be, for the help; starts with a comma.
    """
    parser.add_argument(
        "--model", nargs="+", required=True, metavar="MODEL", help="finished runs, .keras files inside runs, "
        f"SavedModels or ONNX files{where}; several are an ensemble")
    parser.add_argument(
        "--engine", default="auto", choices=ENGINES, help="what computes finished runs: keras; onnx (ONNX Runtime and "
        "the run's model.onnx, without TensorFlow and Keras); or auto (default): onnx where both are there")


def add_reading(parser: argparse.ArgumentParser, skip_bad: str) -> None:
    """Add --allow-outside and --skip-bad, as `find_films` takes them.

    Args:
        parser: the command's.
        skip_bad: what --skip-bad does, for the help.
    """
    parser.add_argument("--allow-outside", action="store_true",
                        help="let paths in a CSV and links in a folder lead out of it")
    parser.add_argument("--skip-bad", action="store_true", help=skip_bad)
