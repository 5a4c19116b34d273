"""Silence of the libraries that would print what a film's file says: pydicom's and highdicom's warnings quote tags."""

import contextlib
import logging
import warnings

LOGGERS = ("pydicom", "highdicom", "py.warnings", "pylibjpeg")


def quiet(*more: str) -> None:
    """Silence them, and the loggers named beside them, for the rest of the process."""
    import cv2

    with contextlib.suppress(ImportError):
        import pydicom.config  # noqa: F401  which sets its logger's level when it is imported
    warnings.simplefilter("ignore")
    for name in (*LOGGERS, *more):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
