"""Judge predictions against the truth, from files: anyone's predictions, never a model.

``python -m chexpert_hier.evaluate --predictions P.csv --truth T.csv --out DIR``, and the same as functions.
"""

from .evaluation import Result, evaluate
from .findings import Findings
from .joining import join
from .output import write
from .ranking import auroc, average_precision, bootstrap_auroc, delong, delong_interval
from .reading import ensemble, read_predictions, read_truth

__all__ = ["Findings", "Result", "auroc", "average_precision", "bootstrap_auroc", "delong", "delong_interval",
           "ensemble", "evaluate", "join", "read_predictions", "read_truth", "write"]
