"""A worker to be killed: reports as fast as it can, and prints what it was told is stored."""

import sys

from progress_workers import Operation


def main(operation: str, lease_s: float) -> None:
    op = Operation.start("chaos", id=operation, lease_s=lease_s)
    line = 0
    while True:
        for _ in range(7):
            line += 1
            op.log(f"line {line}")
            op.advance(1)
        if op.flush(60):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
