"""A pandas table row by row, for a type checker that cannot know its columns."""

from collections.abc import Iterator
from typing import Any

import pandas as pd


def rows(table: pd.DataFrame) -> Iterator[Any]:
    """The rows, whose columns are attributes: `row.label`, `row.auroc`."""
    return iter(table.itertuples(index=False))
