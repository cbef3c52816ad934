"""python -m mlflowfs ARGS is mlflowfs ARGS."""

import os
import sys

from mlflowfs._errors import ProgramMissing
from mlflowfs._program import executable


def main() -> None:
    try:
        program = executable()
    except ProgramMissing as why:
        sys.exit(f"mlflowfs: {why}")
    os.execv(program, ["mlflowfs", *sys.argv[1:]])


if __name__ == "__main__":
    main()
