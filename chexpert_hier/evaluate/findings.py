"""A whole evaluation: what is judged, compared and drawn."""

from dataclasses import dataclass, field

import pandas as pd

from .evaluation import Result
from .radiologists import Readers


@dataclass
class Findings:
    """A whole evaluation: one or several predictions, compared with each other and with radiologists.

    Attributes:
        results: the judged predictions, the first being the main one.
        comparisons: name of the pair -> table of `comparison.compare`.
        readers: name of the predictions -> radiologists beside them.
    """

    results: list[Result]
    comparisons: dict[str, pd.DataFrame] = field(default_factory=dict)
    readers: dict[str, Readers] = field(default_factory=dict)
