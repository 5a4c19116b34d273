"""Who takes part: flags, and what Slurm and Open MPI say."""

import numpy as np
import pytest

from chexpert_hier import run, settings
from chexpert_hier.devices.alone import Devices, shared
from chexpert_hier.devices.launch import Place, place_of
from chexpert_hier.errors import InputError

# As srun sets them for the third of four tasks, two on each of two machines.
SLURM = {"SLURM_JOB_ID": "123456", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
         "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[007-008]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.1.0.1:34911"}


def place(*flags, **environment):
    return place_of(run.parser().parse_args(list(flags)), environment)


def test_flags():
    assert place() is None
    assert place("--devices", "all") == Place() and place("--devices", "3") == Place(3)
    assert place("--processes", "1") == Place()
    assert place("--devices", "2", "--processes", "4", "--process", "3", "--coordinator", "node1:5000") == Place(
        2, 4, 3, ("node1", 5000))
    assert place("--processes", "2", "--process", "0", "--coordinator", "[fe80::1]:5000").coordinator == ("fe80::1",
                                                                                                          5000)


@pytest.mark.parametrize("flags, says", [
    (["--devices", "0"], "--devices is '0'; expected all, or a number"),
    (["--devices", "two"], "expected all"),
    (["--processes", "0"], "--processes is 0"),
    (["--process", "1"], "without --processes"),
    (["--processes", "2", "--process", "1"], "needs --process I and --coordinator"),
    (["--processes", "2", "--coordinator", "a:1"], "needs --process I and --coordinator"),
    (["--processes", "2", "--process", "2", "--coordinator", "a:1"], "expected 0 to 1"),
    (["--processes", "2", "--process", "1", "--coordinator", "a"], "expected HOST:PORT"),
    (["--processes", "2", "--process", "1", "--coordinator", "a:65535"], "expected HOST:PORT"),
])
def test_wrong_flags_are_refused_in_one_line(flags, says):
    with pytest.raises(InputError, match=says):
        place(*flags)


def test_slurm():
    found = place("--devices", "all", **SLURM)
    # 61440 + 123456 % 2047 * 2
    assert found == Place(None, 4, 2, ("gpu007", 62712), (0,))
    others = [place("--devices", "all", **SLURM | {"SLURM_PROCID": str(k)}) for k in range(4)]
    assert [other.process for other in others] == [0, 1, 2, 3]
    assert {other.coordinator for other in others} == {("gpu007", 62712)}
    assert place("--devices", "1", "--coordinator", "big:7000", **SLURM).coordinator == ("big", 7000)
    # The batch script itself has the job's variables, not a step's; and flags go before.
    assert place("--devices", "all", SLURM_JOB_ID="1", SLURM_NTASKS="4", SLURM_PROCID="0") == Place()
    assert place(**SLURM) is None
    assert place("--processes", "1", **SLURM) == Place()


@pytest.mark.parametrize("hosts, first", [("node1", "node1"), ("a,b", "a"), ("n[3,5-7]", "n3"),
                                          ("gpu-a[01-04],b", "gpu-a01")])
def test_the_first_host_of_slurms_list(hosts, first):
    assert place("--devices", "all", **SLURM | {"SLURM_STEP_NODELIST": hosts}).coordinator[0] == first


def test_slurm_that_is_not_understood():
    with pytest.raises(InputError, match="Slurm's variables are not understood"):
        place("--devices", "all", SLURM_STEP_NUM_TASKS="2")
    with pytest.raises(InputError, match="Slurm's variables are not understood"):
        place("--devices", "all", **SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x1)"})


def test_open_mpi():
    found = place("--devices", "all", **OPEN_MPI)
    assert found.processes == 4 and found.process == 3 and found.cards == (1,) and found.coordinator[0] == "10.96.0.1"
    here = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "PMIX_NAMESPACE": "prterun-host-77@1"}
    ports = {place("--devices", "all", **here | {"OMPI_COMM_WORLD_RANK": str(k)}).coordinator for k in range(4)}
    assert len(ports) == 1 and ports.pop()[0] == "127.0.0.1"
    nowhere = {name: value for name, value in OPEN_MPI.items() if "hnp" not in name}
    with pytest.raises(InputError, match="add --coordinator"):
        place("--devices", "all", **nowhere)


@pytest.mark.parametrize("visible, rank, cards", [
    (None, "1", (1,)), ("3", "1", None), ("0,1", "1", (1,)), ("4,5,6,7", "0", (0, 1)), ("4,5,6,7", "1", (2, 3))])
def test_processes_on_one_machine_share_its_cards(visible, rank, cards):
    environment = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_RANK": rank}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    assert place("--devices", "all", **environment).cards == cards


def test_more_processes_than_cards():
    with pytest.raises(InputError, match="3 processes share 2 cards"):
        place("--devices", "all", **OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "3", "CUDA_VISIBLE_DEVICES": "0,1"})


@pytest.mark.parametrize("films, batch, devices, processes", [
    (19, 8, 4, 2), (16, 8, 4, 4), (5, 8, 8, 2), (1, 4, 2, 2), (23, 10, 3, 3), (7, 3, 6, 2)])
def test_every_film_is_read_once_and_padding_is_marked(films, batch, devices, processes):
    shares = [shared(films, batch, devices, processes, k) for k in range(processes)]
    assert len({(len(share.places), share.size, tuple(share.kept)) for share in shares}) == 1
    counted = np.concatenate([share.places[~share.padded] for share in shares])
    assert sorted(counted) == list(range(films))
    # What all processes give for a step, one after the other, holds the batch's films in order; `kept` finds them.
    whole = np.concatenate([np.concatenate([share.places[k:k + share.size] for share in shares])
                            for k in range(0, len(shares[0].places), shares[0].size)])
    assert whole[shares[0].kept].tolist() == list(range(films))
    each = -(-batch // devices)
    assert shares[0].size == each * devices // processes
    assert sum(share.padded.sum() for share in shares) == len(whole) - films < -(-films // batch) * devices


def test_one_device_takes_all():
    share = Devices().share(5, 2)
    assert np.arange(5)[share.places].tolist() == np.arange(5)[share.kept].tolist() == [0, 1, 2, 3, 4]
    assert share.size == 2 and not share.padded.any()


def test_the_linear_rule_multiplies_batch_and_rate_of_every_stage_and_only_on_request():
    class Four(Devices):
        count = 4

    def asked(*flags):
        return settings.settings_of(run.parser().parse_args(["--recipe", "pham2019", *flags]), Four())

    plain, scaled = asked(), asked("--scale-batch")
    assert [(stage.batch_size, stage.learning_rate) for stage in plain.recipe.stages] == [(32, 1e-4), (32, 1e-4)]
    assert [(stage.batch_size, stage.learning_rate) for stage in scaled.recipe.stages] == [(128, 4e-4), (128, 4e-4)]
    assert (plain.scale_batch, scaled.scale_batch) == (1, 4) and scaled.kept_options["scale_batch"] == 4
