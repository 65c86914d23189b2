"""The long search of fuzzing: small valid inputs, changed by what is known to hurt, over everything that reads.

    PYTHONPATH=src:. .venv/bin/python tests/long/fuzzing.py --inputs 1000000 --seed 0 --out fuzzing.json

Not collected by pytest. The input of a number is always the same: `--target readers --only 4711` runs it alone.
Each target runs in processes of its own, some ten thousand inputs each, with a limit of memory. An input from which
anything but an `EntailorError` comes, that takes more than 2 seconds of work or 30 of waiting, or more than 500 MB, is
counted and shown. Prints JSON; exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent.parent
SHARES = {  # of the inputs; what takes longer gets fewer
    "readers": 0.542,
    "configuration": 0.27,
    "run_folders": 0.12,
    "model_folders": 0.05,
    "templates": 0.017,
    "command_lines": 0.001,
}
PROCESS_INPUTS = 50_000
MOST_CPU_SECONDS, MOST_WALL_SECONDS, MOST_BYTES = 2.0, 30.0, 500 << 20
MOST_SHOWN = 20

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**31, 2**32, 2**53, 2**63, -(2**63), 10**30, 10**400),
    *(0.0, 0.5, -0.5, 1.5, 1e-9, 1e32, 1e300, -1e300, float("inf"), float("nan"), "NaN", "1e999", "9" * 5000),
    *("", " ", "x", "a.b", "..", "../..", "/etc/passwd", "/dev/zero", "~", "a\0b", "\ud800", "\ufeff", "é", "x" * 3000),
    *("null", "yes", "no", "2001-99-99", "0x" + "f" * 500, "1:30", "=1+1", "{{ label }}", "lora", "majority", "text"),
    *([], {}, [[]], [{}], {"": {}}, [1, "a"], {"a": 1}, [None] * 50, [[[[[[]]]]]]),
]
TOKENS = [
    *(
        b"",
        b"\0",
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b",",
        b";",
        b'"',
        b"'",
        b"\\",
        b":",
        b"- ",
        b"? ",
        b"&a ",
        b"*a",
        b"<<: ",
    ),
    *(b"!!python/name:os.system ", b"!!binary ", b"!!timestamp ", b"[", b"]", b"{", b"}", b"[" * 200, b'{"a":' * 200),
    *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b\x08", b"PAR1", b"9" * 5000, b"1e999", b"NaN"),
    *(
        b"Infinity",
        b"-1",
        b"2001-99-99",
        b".inf",
        b"0x",
        b"%YAML 1.1\n---\n",
        b"---\n",
        b"...\n",
        b"#",
        b"|\n",
        b">-\n",
    ),
    *(b"\\ud800", b"\\u0000", b"=", b"data.", b"methods=", b"seeds=", b"{{ ", b" }}", b"{% for a in labels %}", b"{%"),
]


def changed_value(value: Any, chance: random.Random, pool: list[Any]) -> Any:
    """Return a JSON value with one place changed: replaced, left out, doubled, put inside another or renamed."""
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.08:
        return chance.choice(pool)
    value = value.copy()
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    act = chance.random()
    if act < 0.7:
        value[key] = changed_value(value[key], chance, pool)
    elif act < 0.8:
        del value[key]
    elif act < 0.9:
        value[key] = chance.choice([[value[key]], {"x": value[key]}, [value[key]] * 3])
    elif isinstance(value, dict):
        value[str(chance.choice(pool))[:100]] = value.pop(key)
    else:
        value += value[:20]
    return value


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with one place changed: another token, a bit, a piece left out, doubled or moved."""
    start = chance.randrange(len(data) + 1)
    end = min(len(data), start + chance.choice((1, 1, 2, 4, 16, 64)))
    act = chance.randrange(6)
    if act == 0:
        return data[:start] + chance.choice(TOKENS) + data[start:]
    if act == 1:
        return data[:start] + chance.choice(TOKENS) + data[end:]
    if act == 2:
        return data[:start] + data[end:]
    if act == 3:
        return data[:end] + data[start:end] * chance.choice((1, 2, 50)) + data[end:]
    if act == 4 and data:
        place = min(start, len(data) - 1)
        return data[:place] + bytes([data[place] ^ (1 << chance.randrange(8))]) + data[place + 1 :]
    return data[start:] + data[:start] if chance.random() < 0.1 else data[: max(start, end)]


def mutated(text: bytes, value: Any, chance: random.Random) -> bytes:
    """Return a document changed as a value, as bytes or both; `value` is what it holds, None where that is no JSON."""
    if value is not None and chance.random() < 0.7:
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            value = changed_value(value, chance, SCALARS)
        with contextlib.suppress(ValueError):  # an integer too long for Python to write
            text = json.dumps(value).encode()
        if chance.random() < 0.8:
            return text
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        text = changed_bytes(text, chance)
    return text[:100_000]


def _json_or_none(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


Maker = Callable[[random.Random], bytes]


def makers() -> dict[str, Maker]:
    """Return what makes an input of each target."""
    from tests import fuzz
    from tests.hostile import runs as hostile

    rows = [{"text": f"good {i}", "text_pair": "x", "label": "ab"[i % 2], "id": str(i)} for i in range(6)]
    csv = b"text,label,id\n" + b"".join(b"good thing %d,%s,%d\n" % (i, b"ab"[i % 2 : i % 2 + 1], i) for i in range(6))
    files = _files_of_every_kind(rows, csv)
    runs = fuzz.run_files()
    models = fuzz.model_files()
    small = json.dumps({"metadata": {}, "weight_map": {"a": "model.safetensors"}}).encode()
    experiment = {
        "data": {
            "train": "a.csv",
            "validation_size": 0.1,
            "columns": {"text": "t"},
            "labels": ["a", "b"],
            "max_rows": 200,
        },
        "models": ["a/b"],
        "model": {"max_length": 64, "max_memory": {"0": "10GiB"}, "device_map": "auto"},
        "methods": {"lora": {"r": 4, "target_modules": ["q"]}, "mine": {"method": "p_tuning"}, "majority": None},
        "prompt": {"verbalizer": {"a": "yes"}, "separator": "\n"},
        "budget": {"trials": 3},
        "recommend": {"cheapest": "latency,stored"},
        "seeds": [0, 1],
        "learning_curve": [20, 50],
    }
    words = [
        b"lora.r=4",
        b"data.validation_size=0.2",
        b"seeds=3",
        b"methods=lora,majority",
        b"data.columns.text=x",
        b"out=r",
    ]
    template = b"{% for a in labels %}{{ a }} {% endfor %}{{ premise }} and {{ hypothesis }}: {{ label }}"
    line = [b"--run\0x\0--input\0y\0--output\0z.csv", b"a\0b", b"--methods\0lora\0lora.r=8", b"--json", b"--sample\03"]

    def reader(chance: random.Random) -> bytes:
        number, text, value = chance.choice(files)
        return bytes([number]) + mutated(text, value, chance)

    def configured(chance: random.Random) -> bytes:
        part = {key: experiment[key] for key in chance.sample(list(experiment), chance.randint(1, 4))}
        text = json.dumps(part).encode()
        head = text if chance.random() < 0.3 else mutated(text, part, chance)
        behind = chance.sample(words, chance.choice((0, 0, 1, 3)))
        behind = [word if chance.random() < 0.5 else _other_word(word, chance) for word in behind]
        return head + (b"\n\n" + b"\n".join(behind) if behind else b"")

    def run(chance: random.Random) -> bytes:
        number = chance.randrange(len(hostile.RUN_FILES))
        text = runs[hostile.RUN_FILES[number]]
        return bytes([number, chance.randrange(256)]) + mutated(text, _json_or_none(text), chance)

    def model(chance: random.Random) -> bytes:
        number = chance.randrange(len(fuzz.MODEL_FILES))
        text = models.get(fuzz.MODEL_FILES[number], small)
        value = _json_or_none(text) if len(text) < 20_000 else None
        return bytes([number, chance.randrange(256)]) + mutated(text, value, chance)

    return {
        "readers": reader,
        "configuration": configured,
        "run_folders": run,
        "model_folders": model,
        "templates": lambda chance: mutated(template, None, chance),
        "command_lines": lambda chance: bytes([chance.randrange(7)]) + mutated(chance.choice(line), None, chance),
    }


def _other_word(word: bytes, chance: random.Random) -> bytes:
    """Return ``key=value`` with another value, or changed anywhere."""
    key, equals, value = word.partition(b"=")
    if chance.random() < 0.7:
        return key + equals + mutated(value, None, chance)
    return mutated(word, None, chance)


def _files_of_every_kind(rows: list[dict[str, str]], csv: bytes) -> list[tuple[int, bytes, Any]]:
    """Return the number of a suffix (`fuzz.SUFFIXES`), a file that is sound, and its JSON value where it has one."""
    import gzip
    import io

    import pyarrow as pa
    from pyarrow import parquet

    written = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), written)
    lines = "\n".join(map(json.dumps, rows)).encode()
    return [
        *(
            (0, csv, None),
            (1, csv.replace(b",", b"\t"), None),
            (2, lines, None),
            (2, json.dumps(rows[0]).encode(), rows[0]),
        ),
        *((3, json.dumps(rows).encode(), rows), (4, gzip.compress(csv), None), (5, written.getvalue(), None)),
        (6, gzip.compress(lines), None),
    ]


def run_inputs(target: str, first: int, count: int, seed: int) -> dict[str, Any]:
    """Run some inputs of a target in this process, and return how they ended."""
    from tests import fuzz
    from tests.hostile import limit_memory, time_limit

    from entailor.errors import EntailorError
    from entailor.report import plots

    plots._svg = lambda figure: '<svg width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'
    make, call = makers()[target], fuzz.TARGETS[target]
    outcomes: Counter[str] = Counter()
    found: dict[str, str] = {}  # the first of each kind
    with TemporaryDirectory() as name:
        with contextlib.suppress(EntailorError):  # what is imported or made on the first call counts for nobody
            call(b"", Path(name))
        limit_memory()
        for number in range(first, first + count):
            data, most = make(random.Random(f"{seed} {target} {number}")), _peak_bytes()
            try:
                with time_limit(MOST_CPU_SECONDS, MOST_WALL_SECONDS):
                    call(data, Path(name))
                outcomes["accepted"] += 1
            except EntailorError:
                outcomes["refused"] += 1
            except BaseException as error:
                kind = "beyond limits" if type(error).__name__ in ("_TooLong", "MemoryError") else "tracebacks"
                outcomes[kind] += 1
                place = traceback.extract_tb(error.__traceback__)[-1]
                text = "".join(traceback.format_exception(error, limit=-4, chain=False))
                found.setdefault(
                    f"{type(error).__name__} {place.filename}:{place.lineno}", f"{target} {number}: {text}"
                )
            if _peak_bytes() - most > MOST_BYTES:
                outcomes["beyond limits"] += 1
                found.setdefault("memory", f"{target} {number}: {(_peak_bytes() - most) >> 20} MB")
    shown = [text[-2000:] for text in found.values()]
    return {"outcomes": dict(outcomes), "found": shown[:MOST_SHOWN], "peak_mb": _peak_bytes() >> 20}


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def search(target: str, count: int, seed: int, workers: int) -> dict[str, Any]:
    """Run inputs of a target, so many in each process and so many processes at a time; one that dies is a finding."""
    size = min(PROCESS_INPUTS, -(-count // workers))
    begin = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        parts = list(
            pool.map(lambda first: _process(target, first, min(size, count - first), seed), range(0, count, size))
        )
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes.update(part["outcomes"])
    found = [text for part in parts for text in part["found"]]
    peak = max(part["peak_mb"] for part in parts)
    report = {"inputs": count, **outcomes, "seconds": round(time.monotonic() - begin, 1), "peak_mb": peak}
    return {**report, "found": found[:MOST_SHOWN]} if found else report


def _process(target: str, first: int, count: int, seed: int) -> dict[str, Any]:
    """Run inputs in a process of their own, whose files lie in memory: most of the time went into a disk."""
    words = [sys.executable, __file__, "--target", target, "--first", str(first), "--seed", str(seed)]
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment = {**os.environ, **offline, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "TMPDIR": folder}
        asked = {"capture_output": True, "text": True, "errors": "replace", "env": environment, "cwd": ROOT}
        done = subprocess.run([*words, "--inputs", str(count)], check=False, **asked)
    try:
        return json.loads(done.stdout.rpartition("\n\x1e")[2])
    except ValueError:
        died = f"{target}, from {first}: died ({done.returncode}): {done.stderr[-1500:]}"
        return {"outcomes": {"tracebacks": 1}, "found": [died], "peak_mb": 0}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path)
    options.add_argument("--workers", type=int, default=1, help="processes at a time")
    options.add_argument("--target", choices=SHARES, help="this one alone, in this process")
    options.add_argument("--only", type=int, help="of the target, this input alone; what goes wrong comes out")
    options.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.only is not None:
        from tests.fuzz import attempt

        data = makers()[chosen.target](random.Random(f"{chosen.seed} {chosen.target} {chosen.only}"))
        sys.stdout.write(f"{data[:2000]!r}\n")
        attempt(chosen.target, data)
        return 0
    if chosen.target:
        part = run_inputs(chosen.target, chosen.first, chosen.inputs, chosen.seed)
        sys.stdout.write("\n\x1e" + json.dumps(part) + "\n")
        return 0
    report = {}
    for target, share in SHARES.items():
        report[target] = search(target, max(1, round(chosen.inputs * share)), chosen.seed, chosen.workers)
        sys.stderr.write(f"{target}: {json.dumps(report[target], indent=2)}\n")
    kinds = ("inputs", "accepted", "refused", "tracebacks", "beyond limits", "seconds")
    report["all"] = {kind: round(sum(one.get(kind, 0) for one in report.values()), 1) for kind in kinds}
    text = json.dumps(report, indent=2)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if report["all"]["tracebacks"] or report["all"]["beyond limits"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
