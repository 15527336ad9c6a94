"""A griffe extension: docstrings of this project have no blank line between their sections, which griffe waits for."""

import re
from typing import Any

from griffe import Extension, Object


class Sections(Extension):
    """Sets sections apart before they are parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute once it is read."""
        if obj.docstring:
            heading = r"(?<!\n)\n(?=(?:Args|Attributes|Raises|Returns|Yields):\n)"
            obj.docstring.value = re.sub(heading, "\n\n", obj.docstring.value)
