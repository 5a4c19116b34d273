"""A run folder that version 0.1 wrote, two of its films beside it, is read, answers and is judged as it was then."""

from pathlib import Path

import numpy as np
import pandas as pd

from chexpert_hier.evaluate import __main__ as evaluate_command
from chexpert_hier.run_folder import read_facts

RUN = Path(__file__).parent / "run_of_0_1"


def test_it_says_what_it_was():
    facts = read_facts(RUN)
    assert facts["versions"]["chexpert_hier"] == "0.1.0" and facts["recipe"]["ct_rows"] == "union"


def test_its_network_gives_the_probabilities_of_then():
    from chexpert_hier.finished import find_films, open_run
    from chexpert_hier.predict import predict_films

    member = open_run(RUN)
    assert member.recipe.ct_rows == "union" and member.model.count_params() > 10_000
    films = sorted(RUN.glob("films/valid/*/study1/*.jpg"))
    assert len(films) == 2
    table, bad = next(predict_films([member], find_films(map(str, films))))
    then = pd.read_csv(RUN / "predictions.csv")[:2]
    assert not bad
    np.testing.assert_allclose(table[list(member.labels)], then[list(member.labels)], atol=1e-5)


def test_its_files_give_the_evaluation_of_then(tmp_path):
    evaluate_command.main(["--predictions", str(RUN / "predictions.csv"), "--truth", str(RUN / "truth.csv"),
                           "--out", str(tmp_path / "out"), "--replicates", "50"])
    columns = ["label", "auroc", "positives", "negatives"]
    now, then = (pd.read_csv(folder / "evaluation.csv")[columns] for folder in (tmp_path / "out", RUN))
    pd.testing.assert_frame_equal(now, then)


