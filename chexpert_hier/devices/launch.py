"""Who takes part: --devices, --processes, --process and --coordinator, or what Slurm and Open MPI say.

Reads arguments and variables only; nothing is started here.
"""

import argparse
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError

# Two ports: JAX's own service, and the watch beside it. Below, where a launcher names no port, those of a job.
FIRST_PORT, PORTS = 61_440, 4_094


@dataclass(frozen=True)
class Place:
    """This process among those that train together.

    Attributes:
        devices: of each process: how many, or None for all that it sees.
        processes: how many take part.
        process: which one this is, from 0.
        coordinator: host and port of process 0; None for one process.
        cards: which of the machine's graphics cards are this process's; None for all that it sees.
    """

    devices: int | None = None
    processes: int = 1
    process: int = 0
    coordinator: tuple[str, int] | None = None
    cards: tuple[int, ...] | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the devices."""
    add = parser.add_argument_group("several devices and machines (docs/scale.md)").add_argument
    add("--devices", metavar="all|N", help="train on all devices of each process, or on N; needs KERAS_BACKEND=jax")
    add("--processes", type=int, metavar="N", help="how many processes train together, each with this same command "
        "(under srun and mpirun, theirs)")
    add("--process", type=int, metavar="I", help="which of them this is, from 0; 0 writes all files")
    add("--coordinator", metavar="HOST:PORT", help="where to reach process 0; PORT and the one after it are used")
    add("--scale-batch", action="store_true", help="multiply batch and learning rate by the number of devices (ours; "
        "otherwise the recipe's batch is shared among them)")


def place_of(args: argparse.Namespace, environment: Mapping[str, str]) -> Place | None:
    """This process's place; None where none of the flags is given.

    Args:
        args: with the flags of `add_flags`.
        environment: a launcher's variables; looked at where --devices is given and --processes is not.

    Raises:
        InputError: a flag is wrong or missing.
    """
    devices = _devices(args.devices)
    if args.processes is None:
        if args.process is not None:
            raise InputError(f"--process {args.process} without --processes: how many take part?")
        if args.devices is None:
            return None
        place = _launched(environment, args.coordinator) or Place()
        return Place(devices, place.processes, place.process, place.coordinator, place.cards)
    if args.processes < 1:
        raise InputError(f"--processes is {args.processes}; expected 1 or more")
    if args.processes == 1:
        return Place(devices)
    if args.process is None or args.coordinator is None:
        raise InputError(f"--processes {args.processes} needs --process I and --coordinator HOST:PORT in each of them")
    if not 0 <= args.process < args.processes:
        raise InputError(f"--process is {args.process}; expected 0 to {args.processes - 1}, each once")
    return Place(devices, args.processes, args.process, _address(args.coordinator))


def _devices(text: str | None) -> int | None:
    if text is None or text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--devices is {text!r}; expected all, or a number from 1")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65_534:
        raise InputError(f"--coordinator is {text!r}; expected HOST:PORT, with a port from 1 to 65534")
    return host.strip("[]"), int(port)


def _launched(environment: Mapping[str, str], coordinator: str | None) -> Place | None:
    """What a launcher's variables say; None where it has started one process."""
    # A batch script has Slurm's variables too; only srun sets those of a step.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return _of_slurm(environment, coordinator)
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return _of_open_mpi(environment, coordinator)
    return None


def _of_slurm(environment: Mapping[str, str], coordinator: str | None) -> Place:
    try:
        processes, process = (int(environment[name]) for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"))
        local = int(environment["SLURM_LOCALID"])
        job, hosts = environment["SLURM_JOB_ID"], environment["SLURM_STEP_NODELIST"]
        beside = _tasks_here(environment["SLURM_STEP_TASKS_PER_NODE"], int(environment.get("SLURM_NODEID", "0")))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"Slurm's variables are not understood ({error}); give --processes, --process and "
                         "--coordinator") from None
    where = _address(coordinator) if coordinator else (_first_host(hosts), _port(job))
    return Place(None, processes, process, where, _cards(environment, local, beside))


def _of_open_mpi(environment: Mapping[str, str], coordinator: str | None) -> Place:
    processes, process, local, beside = (int(environment[f"OMPI_COMM_WORLD_{name}"]) for name in
                                         ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE"))
    job = environment.get("PMIX_NAMESPACE", environment.get("OMPI_MCA_ess_base_jobid", ""))
    launcher = re.search(r"tcp://([^,:]+)", environment.get("OMPI_MCA_orte_hnp_uri", ""))  # Open MPI 4
    if coordinator:
        where = _address(coordinator)
    elif beside == processes:
        where = "127.0.0.1", _port(job)
    elif launcher:
        where = launcher[1], _port(job)
    else:
        raise InputError("mpirun has started processes on several machines and does not say where process 0 is; add "
                         "--coordinator HOST:PORT, the first machine and a free port")
    return Place(None, processes, process, where, _cards(environment, local, beside))


def _first_host(hosts: str) -> str:
    """The first of Slurm's list: "gpu[007-009,12],big" -> "gpu007"."""
    name, _, inside = re.match(r"([^,\[]+)(\[([0-9]+))?", hosts).groups(default="")
    return name + inside


def _tasks_here(counts: str, node: int) -> int:
    """Tasks on a node, of Slurm's list: "2(x3),1" is 2, 2, 2, 1."""
    found: list[int] = []
    for part in counts.split(","):
        count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups(default="1")
        found += [int(count)] * int(times)
    return found[node]


def _port(job: str) -> int:
    number = int(job) if job.isdecimal() else zlib.crc32(job.encode())
    return FIRST_PORT + number % (PORTS // 2) * 2


def _cards(environment: Mapping[str, str], local: int, beside: int) -> tuple[int, ...] | None:
    """Which cards a process takes where several share a machine, and the launcher has not shared them out itself."""
    if beside == 1:
        return None
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return (local,)
    count = len([card for card in visible.split(",") if card.strip()])
    if count <= 1:
        return None
    each = count // beside
    if not each:
        raise InputError(f"{beside} processes share {count} cards (CUDA_VISIBLE_DEVICES={visible}); start at most one "
                         "process for each card")
    return tuple(range(local * each, (local + 1) * each))
