"""A worker for the chaos test: reports to some operations until its standard input closes."""

import random
import select
import sys
from contextlib import ExitStack

from progress_workers import Operation


def main(names: list[str]) -> None:
    with ExitStack() as stack:
        operations = [stack.enter_context(Operation.start("chaos", id=name, total=1_000_000)) for name in names]
        print("started", flush=True)
        while not select.select([sys.stdin], [], [], 0.02)[0]:
            for operation in operations:
                operation.advance(random.randint(0, 5))
                if random.random() < 0.3:
                    operation.log("line " + "x" * random.choice((1, 100, 4000)))


if __name__ == "__main__":
    main(sys.argv[1:])
