"""Silence of the libraries that would print what a film's file says: pydicom's and highdicom's warnings quote tags."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

OPENCV_LOG: Any = getattr(cv2.utils, "logging", cv2)  # before OpenCV 5 in cv2 itself
SILENT = 0  # its level
LOGGERS = ("pydicom", "highdicom", "py.warnings", "pylibjpeg")


def quiet(*more: str) -> None:
    """Silence them, and the loggers named beside them, for the rest of the process."""
    with contextlib.suppress(ImportError):
        import pydicom.config  # noqa: F401  which sets its logger's level when it is imported
    warnings.simplefilter("ignore")
    for name in (*LOGGERS, *more):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    OPENCV_LOG.setLogLevel(SILENT)


class _Silence:
    """OpenCV's log, which knows one level for all threads: silent while any of them is within."""

    def __init__(self) -> None:
        self.lock, self.within, self.level = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            if not self.within:
                self.level = OPENCV_LOG.getLogLevel()
                OPENCV_LOG.setLogLevel(SILENT)
            self.within += 1
        try:
            yield
        finally:
            with self.lock:
                self.within -= 1
                if not self.within:
                    OPENCV_LOG.setLogLevel(self.level)


_SILENCE = _Silence()


def decoded(data: bytes) -> np.ndarray | None:
    """A picture as OpenCV decodes it, as it is stored, BGR or BGRA where it is coloured; None where it cannot.

    Without the lines that its TIFF decoder would print.
    """
    with _SILENCE():
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
