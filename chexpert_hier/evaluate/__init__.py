"""Judge predictions against the truth, from files: anyone's predictions, never a model.

``python -m chexpert_hier.evaluate --predictions P.csv --truth T.csv --out DIR``, and the same as functions.
"""

from .evaluation import evaluate
from .findings import Findings
from .joining import Joining, join
from .output import write
from .ranking import auroc, average_precision, bootstrap_auroc
from .reading import ensemble, read_meta, read_predictions, read_truth
from .result import Judging, Result
from .variance import delong, delong_interval

__all__ = ["Findings", "Joining", "Judging", "Result", "auroc", "average_precision", "bootstrap_auroc", "delong",
           "delong_interval", "ensemble", "evaluate", "join", "read_meta", "read_predictions", "read_truth", "write"]
