"""`python -m lib.run PAPER VARIANT SEED [--name value …]`: train one run, and first what it needs.

`--profile` and every setting of the paper can be given, values as JSON or plain text; `--folder` is where runs are
kept, and `--records` a folder that gets a record of the run, such as reports/flickr8k/vse/records: so a report of many
hours is made in pieces, and on several machines. With `-` in place of the arguments, each line of the standard input is
such a list of arguments, as JSON.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from lib.run import experiment
from lib.run.pool import DONE, FAILED
from lib.run.store import RUNS, keep_records

PLACES = ("folder", "records")  # texts, whatever they look like


def main(arguments: Sequence[str]) -> int:
    if list(arguments) == ["-"]:
        return _serve()
    if len(arguments) < 3 or "--help" in arguments:
        print(__doc__)
        return 0 if "--help" in arguments else 2
    try:
        _run(arguments)
    except (ValueError, OSError) as error:  # bad input, or no place to write: one sentence
        print(error, file=sys.stderr)
        return 1
    return 0


def _serve() -> int:
    """Do the jobs that come in until no more come; whatever ends who sends them ends this within seconds."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for line in iter(sys.stdin.readline, ""):
        try:
            _run(json.loads(line))
            print(DONE, flush=True)
        except Exception:
            print(traceback.format_exc(), FAILED, sep="\n", flush=True)
    return 0


def _end_with(caller: int) -> None:
    while os.getppid() == caller:
        time.sleep(1)
    os._exit(1)


def _run(arguments: Sequence[str]) -> None:
    paper, variant, seed, *rest = arguments
    settings = _options(rest)
    folder, records = Path(settings.pop("folder", RUNS)), settings.pop("records", None)
    result = experiment.run(paper, variant, _seed(seed), settings, folder, log=_say)
    if records:
        keep_records([result], Path(records))
    _say(f"{paper} {variant} seed {seed}: done, in {result.folder.name}")


def _say(line: str) -> None:
    print(line, flush=True)


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 10:
        raise ValueError(f"seed is {text!r}, expected a whole number from 0 on")
    return int(text)


def _options(words: Sequence[str]) -> dict:
    """--name value pairs; raises ValueError for anything else."""
    names, values = words[::2], words[1::2]
    for name in names:
        if not name.startswith("--"):
            raise ValueError(f"found {name!r}, expected --name and a value")
    if len(names) != len(values):
        raise ValueError(f"found {names[-1]} without a value, expected one behind it")
    said = {name.removeprefix("--"): text for name, text in zip(names, values, strict=True)}
    return {name: text if name in PLACES else _value(text) for name, text in said.items()}


def _value(text: str):
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that cannot show a letter stops no run
    sys.exit(main(sys.argv[1:]))
