"""`python -m glue_sparse` is `glue-sparse`."""
# PYTHON_ARGCOMPLETE_OK

import sys

from glue_sparse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
