"""Table 2 of Pham et al. 2019, the rows Ignore-BR, Ignore-LP and Ignore-CC: classic multi-label learners on features.

    python experiments/pham2019_table2_ignore.py                           # a network trained on Table 2's phantom
    python experiments/pham2019_table2_ignore.py --run RUN                 # a finished run, e.g. on CheXpert

The paper takes the rows from its reference [46] (Allaouzi and Ben Ahmed 2019): a DenseNet-121's features, then binary
relevance, label powerset or classifier chains. Uncertain labels are ignored: binary relevance leaves out the label's
uncertain films, the two others, which need all five labels of a film, the films with any uncertain one. Logistic
regression (scikit-learn, defaults but for the iterations) on standardised features of the network's last pooling.
Written beside Table 2's other rows; `pham2019_table2.py --tables-only` puts them on its page.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from companions import circumstances
from pham2019_table2 import HERE, PHANTOM
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from chexpert_hier import commands, evaluate
from chexpert_hier.files import write_text
from chexpert_hier.labels import COMPETITION_LABELS, hard_targets
from chexpert_hier.phantom import making


def logistic(iterations: int):
    """Logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations))


def binary_relevance(x: np.ndarray, y: np.ndarray, judged: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """One classifier per label.

    Args:
        x: float (films, features) of the training films.
        y: (films, labels) of them: 1, 0, NaN (uncertain: the film is left out for that label).
        judged: float (n, features).
        iterations: at most, of the optimiser.

    Returns:
        p(label), (n, labels).
    """
    columns = []
    for k in range(y.shape[1]):
        known = ~np.isnan(y[:, k])
        columns.append(logistic(iterations).fit(x[known], y[known, k]).predict_proba(judged)[:, 1])
    return np.stack(columns, axis=1)


def label_powerset(x: np.ndarray, y: np.ndarray, judged: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """One class per set of labels that occurs; p(label) is the sum over the sets that hold it.

    Arguments and result as `binary_relevance`; films with an uncertain label are left out.
    """
    known = ~np.isnan(y).any(axis=1)
    sets, place = np.unique(y[known], axis=0, return_inverse=True)
    p = logistic(iterations).fit(x[known], place.ravel()).predict_proba(judged)  # (n, sets)
    return np.minimum(p.astype(np.float64) @ sets, 1.0)


def classifier_chain(x: np.ndarray, y: np.ndarray, judged: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """Each label's classifier sees the labels before it: those of the films in training, its own answers afterwards.

    Arguments and result as `binary_relevance`; films with an uncertain label are left out. The order is that of the
    paper's table.
    """
    known = ~np.isnan(y).any(axis=1)
    chain = ClassifierChain(LogisticRegression(max_iter=iterations))
    model = make_pipeline(StandardScaler(), chain).fit(x[known], y[known])
    return model.predict_proba(judged)


METHODS = {"Ignore-BR": binary_relevance, "Ignore-LP": label_powerset, "Ignore-CC": classifier_chain}


def features(run: Path) -> dict[str, tuple]:
    """Features of a finished run's training and judged films, and these films.

    Returns:
        split -> (float32 (films, features), the films).
    """
    from chexpert_hier.finished.members import open_run
    from chexpert_hier.network.backbones import BACKBONES
    from chexpert_hier.network.model import feature_model
    from chexpert_hier.prepare import sources
    from chexpert_hier.run_folder import read_facts

    member, facts = open_run(run), read_facts(run)
    dataset = sources.read_data(member.recipe, Path(facts["data"]["root"]), facts["labels"], facts["limit"])
    source = sources.from_cache(dataset, member.recipe, run, BACKBONES[member.recipe.arch].native)
    network, answer = feature_model(member.model), {}
    for split in ("train", "valid"):
        films = source.films(split)
        values = network.predict(films.batches(np.arange(len(films)), batch_size=64), verbose=0)
        answer[split] = values.astype(np.float32), films
    return answer


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--run", type=Path, help="a finished run whose features are used; without it one is trained, "
                        "policy u-ignore, on the phantom of Table 2")
    answer.add_argument("--arch", default="densenet121", help="of the network that is trained")
    answer.add_argument("--iterations", type=int, default=1000, help="of logistic regression, at most")
    answer.add_argument("--work", type=Path, default=HERE / "work" / "table2")
    answer.add_argument("--out", type=Path, default=HERE / "results" / "pham2019_table2")
    return answer


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    began = time.monotonic()
    run = args.run or _trained(args)
    found = features(run)
    (x, train), (judged, valid) = found["train"], found["valid"]
    columns = [train.labels.index(label) for label in COMPETITION_LABELS]
    y = hard_targets(train.raw, "u-ignore")[:, columns]
    truth = valid.dataset.films[["path", *COMPETITION_LABELS]].rename(columns={"path": "Path"})
    facts = json.loads((run / "recipe.json").read_text())["recipe"]
    network = pd.read_csv(run / "predictions.csv")[["Path", *COMPETITION_LABELS]]
    answers = {f"the network itself ({facts['arch']}, {facts['policy']})": network}
    for name, method in METHODS.items():
        answers[name] = pd.DataFrame(method(x, y, judged, args.iterations), columns=list(COMPETITION_LABELS))
        answers[name].insert(0, "Path", truth["Path"])
    rows = [_row(name, table, truth) for name, table in answers.items()]
    complete = int((~np.isnan(y).any(axis=1)).sum())
    write_text(args.out / "ignore.csv", pd.DataFrame(rows).to_csv(index=False, float_format="%.4f"))
    drawn = {} if args.run else {"phantom_generator": making.GENERATOR_VERSION}
    write_text(args.out / "ignore.json", json.dumps({
        **circumstances(), "seconds": round(time.monotonic() - began), "network": f"{facts['arch']} at "
        f"{facts['image_size']} pixels from {'random' if facts['weights'] == 'none' else facts['weights']} weights, "
        f"{facts['policy']}", "films": {"train": len(y), "complete": complete, "judged": len(truth)},
        "features": int(x.shape[1]), **drawn}, indent=1))
    print(pd.DataFrame(rows).to_string(index=False))
    return 0


def _trained(args: argparse.Namespace) -> Path:
    run = args.work / f"{args.arch}-u-ignore"
    if not (run / "evaluation.csv").exists():
        data = making.ensure(args.work / "phantom", **PHANTOM)
        command = [sys.executable, "-m", "chexpert_hier.run", "--data", data, "--recipe", "phantom", "--arch",
                   args.arch, "--policy", "u-ignore", "--out", run, "--resume", "--no-export"]
        subprocess.run([str(part) for part in command], check=True)
    return run


def _row(name: str, answers: pd.DataFrame, truth: pd.DataFrame) -> dict:
    result = evaluate.evaluate(answers, truth, evaluate.Joining(labels=COMPETITION_LABELS, unit="study"),
                               evaluate.Judging(name=name))
    table = result.table.set_index("label")
    mean = table.loc["mean of five"]
    return {"method": name, **{label: table.loc[label, "auroc"] for label in COMPETITION_LABELS},
            "mean": mean["auroc"], "low": mean["auroc_low"], "high": mean["auroc_high"]}


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
