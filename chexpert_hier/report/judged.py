"""A finished run, read and judged: what the report speaks of."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import evaluate, hierarchy, recipes
from ..datasets.dataset import Dataset
from ..errors import InputError
from ..evaluate.comparison import compare
from ..evaluate.joining import Cases
from ..evaluate.runs import joining_of
from ..evaluate.tree import tree_report
from ..phantom import making
from ..run_folder import data_folders, is_synthetic, patients_of, read_facts, read_log

log = logging.getLogger("chexpert_hier.report")
NEEDED = ("log.csv", "predictions.csv", "conditional.csv", "truth.csv", "split.csv")


@dataclass
class Run:
    """What a finished run left, read and judged.

    Attributes:
        folder: the run folder.
        facts: recipe.json.
        recipe: how it was trained.
        tree: the hierarchy of its labels.
        log: log.csv, one row per epoch.
        dataset: its films, or None where they are no longer there.
        result: the reported predictions, judged; its tree report and comparison set the chain rule off beside on.
        films: the judged films one by one, with the reported probabilities.
    """

    folder: Path
    facts: dict
    recipe: recipes.Recipe
    tree: hierarchy.Tree
    log: pd.DataFrame
    dataset: Dataset | None
    result: evaluate.Result
    films: Cases

    @property
    def synthetic(self) -> bool:
        """Whether the films are a phantom's, as far as can be seen."""
        return (any(making.read_marker(folder) is not None for folder in data_folders(self.facts))
                or is_synthetic(self.facts))


def read_run(folder: str | Path, replicates: int = 1000, data: Sequence[Path] | None = None) -> Run:
    """Read a finished run folder and judge its predictions, with and without the chain rule.

    Args:
        folder: the run folder.
        replicates: bootstrap resamples of patients.
        data: the folders of its films; None: those that recipe.json names.

    Raises:
        InputError: it is no run folder, or the run is not finished.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise InputError(f"{folder}: {missing[0]} is missing; the run is not finished. Go on with it: python -m "
                         f"chexpert_hier.run --out {folder} --resume")
    recipe, names = recipes.from_json(facts["recipe"]), tuple(facts["outputs"])
    tree = hierarchy.named(facts["tree"], names)
    result, films = _judged(folder, recipe, names, tree, replicates)
    return Run(folder, facts, recipe, tree, read_log(folder), _dataset(facts, recipe, data), result, films)


def _judged(folder: Path, recipe: recipes.Recipe, names: tuple[str, ...], tree: hierarchy.Tree, replicates: int):
    reported = evaluate.read_predictions(folder / "predictions.csv")
    off = evaluate.read_predictions(folder / "conditional.csv")
    on = off.copy()
    on[list(names)] = hierarchy.chain_rule(off[list(names)].to_numpy(float), tree)
    truth = evaluate.read_truth(folder / "truth.csv")
    patients = patients_of(folder, truth["Path"].tolist())
    joining = joining_of(recipe, names, truth["Path"], patients)
    result = evaluate.evaluate(reported, truth, joining, evaluate.Judging(
        replicates=replicates, seed=recipe.seed, tree=tree, name="This run", by=("Set",) if "Set" in truth else ()))
    before, after = (evaluate.join(table, truth, joining) for table in (off, on))
    result.tree = tree_report(after, tree, before)
    if len(tree.edges):
        result.settings["conditional"] = "given"
        result.comparisons["Chain rule on, against off"] = compare(
            before, after, ("chain rule off", "chain rule on"), replicates=replicates, seed=recipe.seed)
    films = evaluate.join(reported, truth, evaluate.Joining(names, patients, "film", truth_blank=recipe.blank))
    return result, films


def _dataset(facts: dict, recipe: recipes.Recipe, data: Sequence[Path] | None) -> Dataset | None:
    """The run's films, if they are still there and still the same."""
    from ..prepare import sources

    root = list(data or data_folders(facts))
    if not root:
        log.warning("the report goes without films and training counts: the run does not say where its films lie "
                    "(--data DIR)")
        return None
    try:
        dataset = sources.read_data(recipe, root, facts["labels"], facts["limit"])
    except InputError as error:
        log.warning("the report goes without films and training counts: %s", error)
        return None
    if tuple(dataset.labels) != tuple(facts["outputs"]):
        log.warning("the report goes without films and training counts: %s has other labels now", root)
        return None
    return dataset
