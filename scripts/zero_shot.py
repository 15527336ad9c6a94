"""The same as `glue-sparse zero-shot`, from a checkout."""

import sys

from glue_sparse.cli.zero_shot import main

if __name__ == "__main__":
    sys.exit(main())
