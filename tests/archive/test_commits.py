"""Whatever a death leaves on the disk: what counts is whole, and no film counts twice."""

import pytest

from chexpert_hier.archive import places
from chexpert_hier.archive.commits import Counted, Ledger

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def ledger(tmp_path):
    return Ledger(places.at(tmp_path))


def rows(ids, bad=()):
    return pa.table({"id": pa.array(ids, pa.int64()), "error": pa.array(["bad" if k in bad else None for k in ids],
                                                                        pa.string())})


def put(ledger, name, ids, bad=(), state="committed"):
    """A block as Ray leaves it: pending, written (rows, still pending) or committed."""
    for folder in ("results", "checkpoint"):
        (places.Path(ledger.out.path) / folder).mkdir(exist_ok=True)
    table = rows(ids, bad)
    if state != "pending":
        parquet.write_table(table, ledger.rows_file(name).path)
    ending = ".parquet" if state == "committed" else ".pending.parquet"
    parquet.write_table(table.select(["id"]), (ledger.checkpoint / f"{name}{ending}").path)


def test_every_state_between_two_steps(ledger):
    put(ledger, "x_000000", [1, 2])
    put(ledger, "x_000001", [3], state="pending")
    put(ledger, "x_000002", [4], state="written")
    put(ledger, "x_000003", [5])  # killed in an object store between the copy and the removal: both are there
    put(ledger, "x_000003", [5], state="written")
    put(ledger, "x_000004", [6])  # written after its checkpoint had been cleaned up
    (ledger.checkpoint / "x_000004.parquet").remove()
    assert ledger.repair() == 0
    assert ledger.ids().tolist() == [1, 2, 5] and ledger.done() == Counted(3, 0)
    assert [file.name for file in ledger.results.files()] == ["x_000000-0.parquet", "x_000003-0.parquet"]
    assert [file.name for file in ledger.checkpoint.files()] == ["x_000000.parquet", "x_000003.parquet"]


@pytest.mark.parametrize("damage", ["rows gone", "rows cut", "rows empty", "ids cut", "other rows"])
def test_what_a_power_cut_left_is_scored_again(ledger, damage):
    put(ledger, "x_000000", [1, 2])
    put(ledger, "x_000001", [3, 4])
    file = places.Path((ledger.checkpoint / "x_000001.parquet" if damage == "ids cut" else
                        ledger.rows_file("x_000001")).path)
    if damage == "rows gone":
        file.unlink()
    elif damage == "other rows":
        parquet.write_table(rows([3]), file)
    else:
        file.write_bytes(b"" if damage == "rows empty" else file.read_bytes()[:-20])
    assert ledger.repair() == 1
    assert ledger.ids().tolist() == [1, 2] and len(ledger.results.files()) == len(ledger.checkpoint.files()) == 1


def test_only_the_failed_are_forgotten(ledger):
    put(ledger, "x_000000", [1, 2, 3], bad=[2])
    put(ledger, "x_000001", [4, 5])
    put(ledger, "x_000002", [6], bad=[6])
    assert ledger.done() == Counted(6, 2)
    assert ledger.forget_failed() == 2
    assert ledger.ids().tolist() == [1, 3, 4, 5] and ledger.done() == Counted(4, 0)
    assert ledger.repair() == 0 and ledger.ids().tolist() == [1, 3, 4, 5]
    assert ledger.forget_failed() == 0


@pytest.mark.parametrize("steps", range(8))
def test_a_death_while_the_failed_are_forgotten(ledger, monkeypatch, steps):
    """At every step: never a film twice, never a good film of another block gone, and going on ends well."""
    put(ledger, "x_000000", [1, 2, 3], bad=[2])
    put(ledger, "x_000001", [4])
    left = [steps]

    def dying(method):
        def step(*arguments):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return method(*arguments)
        return step

    with monkeypatch.context() as patch:
        patch.setattr(places.Place, "write", dying(places.Place.write))
        patch.setattr(places.Place, "remove", dying(places.Place.remove))
        try:
            ledger.forget_failed()
            assert steps >= 4
        except KeyboardInterrupt:
            assert steps < 4
    after = Ledger(ledger.out)
    after.repair()
    found = after.ids().tolist()
    assert len(found) == len(set(found)) and 4 in found and set(found) <= {1, 2, 3, 4}
    assert set(found) in ({1, 2, 3, 4}, {1, 3, 4}, {4})  # the block in hand is scored again at most
    after.forget_failed()
    assert 2 not in after.ids()


def test_deaths_with_a_block_in_hand_are_counted(ledger):
    with ledger.in_hand(70) as deaths, ledger.in_hand(80) as other:
        assert (deaths, other) == (0, 0)
    dead = [ledger.in_hand(70) for _ in range(3)]
    assert [dying.__enter__() for dying in dead] == [0, 1, 2]  # and kill -9: none of them leaves
    with ledger.in_hand(80) as deaths:
        assert deaths == 0
    with pytest.raises(ValueError, match="a full disk is no death"), ledger.in_hand(90):
        raise ValueError("a full disk is no death")
    with ledger.in_hand(90) as deaths:
        assert deaths == 0
    Ledger(ledger.out).repair()  # another session begins
    with ledger.in_hand(70) as deaths:
        assert deaths == 0


def test_files_are_counted_once(ledger, monkeypatch):
    put(ledger, "x_000000", [1, 2], bad=[1])
    assert ledger.done() == Counted(2, 1)
    put(ledger, "x_000001", [3])
    looked = []
    count = Ledger._count
    monkeypatch.setattr(Ledger, "_count", lambda self, name: looked.append(name) or count(self, name))
    assert ledger.done() == Counted(3, 1) and looked == ["x_000001"]


def test_nothing_there_yet(ledger):
    assert ledger.repair() == 0 and ledger.done() == Counted(0, 0) and ledger.ids().tolist() == []
