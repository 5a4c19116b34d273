"""A whole evaluation: what the figures, the page, the tables and the files are made from."""

from dataclasses import dataclass, field

import pandas as pd

from .external import External
from .radiologists import Readers
from .result import Result


@dataclass
class Findings:
    """One or several predictions, compared with each other and with radiologists, and on other films.

    Attributes:
        results: the judged predictions, the first being the main one.
        comparisons: name of the pair -> table of `comparison.compare`.
        readers: name of the predictions -> radiologists beside them.
        external: the same model on another data set, or None.
        asked: what was asked for, by which a folder knows its own evaluation again (`output.asked`).
    """

    results: list[Result]
    comparisons: dict[str, pd.DataFrame] = field(default_factory=dict)
    readers: dict[str, Readers] = field(default_factory=dict)
    external: External | None = None
    asked: dict[str, object] = field(default_factory=dict)

    @property
    def main(self) -> Result:
        """The first predictions."""
        return self.results[0]

    @property
    def compared(self) -> dict[str, pd.DataFrame]:
        """All comparisons, those within the main predictions (before and after the chain rule) first."""
        return {**self.main.comparisons, **self.comparisons}
