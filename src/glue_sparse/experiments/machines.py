"""The machines that the processes of a run are on, and the program that starts them there."""

from dataclasses import dataclass

MOST_PROCESSES = 4096
"""Of one run."""
PATIENCE = 600
"""Seconds in which the first machine must begin; it may prune a diff before."""


@dataclass(frozen=True)
class Machines:
    """Machines of one run; by default this one alone.

    Attributes:
        count: how many there are.
        own: which of them this is, from 0.
        meeting: HOST:PORT of the first, where all find each other.
        name: of the meeting; no two runs have the same.
    """

    count: int = 1
    own: int = 0
    meeting: str = ""
    name: str = ""

    def share(self, num_processes: int) -> int:
        """Processes on each machine.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        if num_processes % self.count:
            raise ValueError(f"{num_processes} processes cannot be shared out evenly over {self.count} nodes: give "
                             "`num_processes` as a multiple of the nodes")  # fmt: skip
        return num_processes // self.count

    def launcher(self, num_processes: int) -> list[str]:
        """Words for Python, before those of the program that runs as so many processes; none for a single one.

        On one machine each launcher finds a free port, so that several may work side by side.
        """
        if num_processes == 1:
            return []
        meet = ["--standalone"]
        if self.count > 1:
            meet = ["--nnodes", str(self.count), "--rdzv_backend", "c10d", "--rdzv_endpoint", self.meeting, "--rdzv_id",
                    self.name, "--rdzv_conf", f"read_timeout={PATIENCE},join_timeout={PATIENCE}"]  # fmt: skip
        return ["-m", "torch.distributed.run", *meet, "--nproc_per_node", str(self.share(num_processes))]


HERE = Machines()
"""This machine alone."""
