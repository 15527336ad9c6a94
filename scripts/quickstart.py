"""The same as `glue-sparse quickstart`, from a checkout."""

import sys

from glue_sparse.cli.main import call

if __name__ == "__main__":
    sys.exit(call("quickstart"))
