"""Memory and speed of reading products from a file larger than wanted in memory: python
tests/benchmarks/bench_products.py [--lines N]

Writes a generated file of so many lines, streams it in a fresh process, and prints a row of a Markdown table at each
tenth of it: the process's memory must not grow.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.corpora.products import stream  # noqa: E402


def write(path: Path, lines: int) -> None:
    """Items about as long as those of the released sample: 7 properties, 29 characters a title."""
    with open(path, "w", encoding="utf-8") as file:
        for i in range(lines):
            triples = "#;#".join(f"property {i % 433 + k}#:#value {(i + k) % 1340}" for k in range(7))
            address = f"https://pictures.example/{i:032d}.jpg"
            file.write(f"{i}\titem number {i} of a large shop\t{address}\t{triples}\tcategory {i % 271}\n")


def measure(path: Path, lines: int) -> None:
    """Print a row at each tenth."""
    started, triples = time.perf_counter(), 0
    for count, product in enumerate(stream(path), start=1):
        triples += len(product.properties)
        if count % max(1, lines // 10) == 0:
            seconds = time.perf_counter() - started
            print(
                f"| {count:,} | {triples:,} | {_resident():.0f} | {seconds:.1f} | {count / seconds:,.0f} |", flush=True
            )


def _resident() -> float:
    """The memory that this process holds now, in MB (Linux)."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    lines = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.tsv"
        write(path, lines)
        print(f"{lines:,} lines, {path.stat().st_size / 2**20:,.0f} MB, load {os.getloadavg()[0]:.1f}\n")
        print("| items read | triples | MB held | s | items a second |\n|---|---|---|---|---|")
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(path, lines))
        process.start()
        process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
