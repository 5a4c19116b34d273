"""Whatever the two files hold: an evaluation, or one line and exit code 2; never a traceback, never half of one."""

import random

import pytest

from chexpert_hier import commands
from chexpert_hier.evaluate.__main__ import main

HEADS = ("Path", "Study", "path", "Image Index", "Edema_Pred", "Edema_GT", "edema", "Cardiomegaly", "Sex", "Age", "",
         "é", "Patient", "[key]", "key", "[joined]", "=1+1", "\x1b[2J", "Mass", "Nodule", "Lung Lesion", "a|b", "$x$")
CELLS = ("", "nan", "inf", "-inf", "1e400", "x", "2", "-1", "<b>", "1e-320", "-0", " 1 ", "0.5")
KEYS = ("a/patient00001/study1/view1_frontal.jpg", "a/patient00002/study1/view1_frontal.jpg",
        "b/patient00003/study2/v_lateral.jpg", "a/patient00004/study1/view1_frontal.jpg")
ODD_KEYS = ("00000013_005.png", "x", "", "a/b", "../patient9/study1/v.jpg", "a/patient00002/study1", KEYS[0])
WORDS = ([], ["--intersect"], ["--by", "Sex"], ["--unit", "patient"], ["--views", "frontal"], ["--unit", "film"],
         ["--truth-blank", "ignore"], ["--table", "latex", "csv"], ["--ensemble"], ["--threshold", "0.5"])


def table(dice: random.Random, good: tuple[str, ...]) -> bytes:
    """A table that is right, but for a few things perhaps."""
    heads = ["Path", "Edema", *dice.sample(HEADS, dice.choice((0, 0, 1, 3)))]
    heads[0] = dice.choice(HEADS) if dice.random() < 0.05 else heads[0]
    odd = dice.choice((0, 0, 0.02, 0.2))
    rows = [[dice.choice(ODD_KEYS) if dice.random() < odd else key,
             *(dice.choice(CELLS if dice.random() < odd else good) for _ in heads[1:])] for key in KEYS]
    rows = rows[:dice.randrange(5)] if dice.random() < 0.1 else rows
    if dice.random() < 0.05 and rows:
        rows[-1] = rows[-1][:-1] if dice.random() < 0.5 else [*rows[-1], "1"]
    data = "\n".join(",".join(line) for line in (heads, *rows)).encode("utf-8")
    if dice.random() < 0.1:
        place = dice.randrange(len(data) + 1)
        data = data[:place] + bytes(dice.randrange(256) for _ in range(3)) + data[place:]
    return data


def tried(folder, seed: int, count: int, capsys) -> set[int]:
    """Exit codes of `count` evaluations of made-up files."""
    dice, codes = random.Random(seed), set()
    for number in range(count):
        (folder / "p.csv").write_bytes(table(dice, dice.choice((("0.1", "0.7", "0.4"), ("0", "1")))))
        (folder / "t.csv").write_bytes(table(dice, ("0", "1")))
        out = folder / f"out{number}"
        words = ["--predictions", str(folder / "p.csv"), "--truth", str(folder / "t.csv"), "--replicates", "5",
                 "--no-page", "--out", str(out), *dice.choice(WORDS)]
        code = commands.answer(main, words)
        said = capsys.readouterr()
        assert code in (0, 2) and "\x1b" not in said.out + said.err, (seed, number)
        assert (out / "evaluation.json").exists() == (code == 0)
        if code:
            assert said.err.count("\n") == 1 and said.err.startswith("error: "), said.err
        codes.add(code)
    return codes


def test_any_two_tables(tmp_path, capsys):
    assert tried(tmp_path, 1, 60, capsys) == {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_more_tables(tmp_path, capsys, seed):
    tried(tmp_path, seed, 300, capsys)
