"""Whatever a death leaves on the disk: what counts is whole, and no film counts twice."""

import pytest

from chexpert_hier.archive import places
from chexpert_hier.archive.commits import Counted, ResultStore

pa = pytest.importorskip("pyarrow", reason="archive needs pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def store(tmp_path):
    return ResultStore(places.at(tmp_path))


def rows(ids, bad=()):
    return pa.table({"id": pa.array(ids, pa.int64()), "error": pa.array(["bad" if k in bad else None for k in ids],
                                                                        pa.string())})


def put(store, name, ids, bad=(), state="committed"):
    """A block as Ray leaves it: pending, written (rows, still pending) or committed."""
    for folder in ("results", "checkpoint"):
        (places.Path(store.out.path) / folder).mkdir(exist_ok=True)
    table = rows(ids, bad)
    if state != "pending":
        parquet.write_table(table, store.rows_file(name).path)
    ending = ".parquet" if state == "committed" else ".pending.parquet"
    parquet.write_table(table.select(["id"]), (store.checkpoint / f"{name}{ending}").path)


def test_every_state_between_two_steps(store):
    put(store, "x_000000", [1, 2])
    put(store, "x_000001", [3], state="pending")
    put(store, "x_000002", [4], state="written")
    put(store, "x_000003", [5])  # killed in an object store between the copy and the removal: both are there
    put(store, "x_000003", [5], state="written")
    put(store, "x_000004", [6])  # written after its checkpoint had been cleaned up
    (store.checkpoint / "x_000004.parquet").remove()
    assert store.repair() == 0
    assert store.ids().tolist() == [1, 2, 5] and store.done() == Counted(3, 0)
    assert [file.name for file in store.results.files()] == ["x_000000-0.parquet", "x_000003-0.parquet"]
    assert [file.name for file in store.checkpoint.files()] == ["x_000000.parquet", "x_000003.parquet"]


@pytest.mark.parametrize("damage", ["rows gone", "rows cut", "rows empty", "ids cut", "other rows"])
def test_what_a_power_cut_left_is_scored_again(store, damage):
    put(store, "x_000000", [1, 2])
    put(store, "x_000001", [3, 4])
    file = places.Path((store.checkpoint / "x_000001.parquet" if damage == "ids cut" else
                        store.rows_file("x_000001")).path)
    if damage == "rows gone":
        file.unlink()
    elif damage == "other rows":
        parquet.write_table(rows([3]), file)
    else:
        file.write_bytes(b"" if damage == "rows empty" else file.read_bytes()[:-20])
    assert store.repair() == 1
    assert store.ids().tolist() == [1, 2] and len(store.results.files()) == len(store.checkpoint.files()) == 1


def test_only_the_failed_are_forgotten(store):
    put(store, "x_000000", [1, 2, 3], bad=[2])
    put(store, "x_000001", [4, 5])
    put(store, "x_000002", [6], bad=[6])
    assert store.done() == Counted(6, 2)
    assert store.forget_failed() == 2
    assert store.ids().tolist() == [1, 3, 4, 5] and store.done() == Counted(4, 0)
    assert store.repair() == 0 and store.ids().tolist() == [1, 3, 4, 5]
    assert store.forget_failed() == 0


@pytest.mark.parametrize("steps", range(8))
def test_a_death_while_the_failed_are_forgotten(store, monkeypatch, steps):
    """At every step: never a film twice, never a good film of another block gone, and going on ends well."""
    put(store, "x_000000", [1, 2, 3], bad=[2])
    put(store, "x_000001", [4])
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
            store.forget_failed()
            assert steps >= 4
        except KeyboardInterrupt:
            assert steps < 4
    after = ResultStore(store.out)
    after.repair()
    found = after.ids().tolist()
    assert len(found) == len(set(found)) and 4 in found and set(found) <= {1, 2, 3, 4}
    assert set(found) in ({1, 2, 3, 4}, {1, 3, 4}, {4})  # the block in hand is scored again at most
    after.forget_failed()
    assert 2 not in after.ids()


def test_deaths_with_a_block_in_hand_are_counted(store):
    with store.in_hand(70) as deaths, store.in_hand(80) as other:
        assert (deaths, other) == (0, 0)
    dead = [store.in_hand(70) for _ in range(3)]
    assert [dying.__enter__() for dying in dead] == [0, 1, 2]  # and kill -9: none of them leaves
    with store.in_hand(80) as deaths:
        assert deaths == 0
    with pytest.raises(ValueError, match="a full disk is no death"), store.in_hand(90):
        raise ValueError("a full disk is no death")
    with store.in_hand(90) as deaths:
        assert deaths == 0
    ResultStore(store.out).repair()  # another session begins
    with store.in_hand(70) as deaths:
        assert deaths == 0


def test_files_are_counted_once(store, monkeypatch):
    put(store, "x_000000", [1, 2], bad=[1])
    assert store.done() == Counted(2, 1)
    put(store, "x_000001", [3])
    looked = []
    count = ResultStore._count
    monkeypatch.setattr(ResultStore, "_count", lambda self, name: looked.append(name) or count(self, name))
    assert store.done() == Counted(3, 1) and looked == ["x_000001"]


def test_nothing_there_yet(store):
    assert store.repair() == 0 and store.done() == Counted(0, 0) and store.ids().tolist() == []
