"""Everything a run is told. Loads no torch until the Trainer's part is asked for."""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from glue_sparse.arguments.flags import build
from glue_sparse.arguments.groups import MergeArguments, ModelArguments, TaskArguments
from glue_sparse.arguments.method import MethodArguments

if TYPE_CHECKING:
    from glue_sparse.arguments.training import RunArguments


@dataclass(frozen=True)
class Arguments:
    """Everything a run is told."""

    task: TaskArguments
    model: ModelArguments
    method: MethodArguments
    merge: MergeArguments
    values: dict[str, Any]
    """The value of every flag, those of the Trainer too."""
    given: dict[str, Any]
    """The values that differ from a flag's own default, for results.json."""

    @cached_property
    def training(self) -> "RunArguments":
        """What the Trainer is told; transformers is loaded for this alone, and a ValueError says what it refuses."""
        kind = import_module("glue_sparse.arguments.training").RunArguments
        try:
            return build(kind, self.values)
        except (ValueError, TypeError, ImportError) as error:  # what transformers says of its own flags
            raise ValueError(" ".join(str(error).split())) from error

    def value(self, flag: str) -> Any:
        """The value of any flag.

        Raises:
            ValueError: no such flag.
        """
        if flag not in self.values:
            raise ValueError(f"there is no setting {flag!r}")
        return self.values[flag]
