"""What a worker measures of its machine: on real processes, and on a library that answers as NVIDIA's does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tuner.storage.connection import Database
from tuner.storage.workers import GpuUsage, Usage, list_workers, register, set_usage
from tuner.worker.usage import UsageMeter, family

# Prints one usage: of itself, and of a grandchild that computes and holds 64 MiB.
PROGRAM = """
import json, os, sys, time
from dataclasses import asdict
from tuner.worker.usage import UsageMeter
meter = UsageMeter()
held = b""
if os.fork() == 0:
    if os.fork() == 0:
        held = b"x" * 2**26
        while True:
            pass
    time.sleep(60)
time.sleep(1.0)
print(json.dumps(asdict(meter.read())), flush=True)
os.killpg(0, 9)
"""

LIBRARY = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(unsigned long)(index + 1);
    return index < 3 ? 0 : 2;
}
int nvmlDeviceGetHandleByUUID(const char *name, void **device) {
    *device = (void *)2;
    return strcmp(name, "GPU-second") ? 6 : 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned rates[2]) {
    rates[0] = 10 * (unsigned long)device;
    return device == (void *)3 ? 3 : 0;  /* not supported */
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long memory[3]) {
    memory[0] = 1000, memory[1] = 900, memory[2] = 100 * (unsigned long)device;
    return 0;
}
"""


def measured(program: str, **environment: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_a_worker_is_all_that_descends_from_it() -> None:
    usage = measured(PROGRAM)
    assert usage["busy_cores"] > 0.1  # of one, beside whatever else runs here
    assert usage["cores"] == len(psutil.Process().cpu_affinity() or [])
    assert usage["memory_bytes"] > 2**26
    assert usage["available_bytes"] <= psutil.virtual_memory().total


def test_the_family_is_every_descendant() -> None:
    program = ["sh", "-c", "sleep 60 & echo started; wait"]
    child = subprocess.Popen(program, start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        child.stdout.readline()  # the shell's own child is there
        found = family(os.getpid())
        assert {os.getpid(), child.pid} <= found
        assert found == {os.getpid(), *(process.pid for process in psutil.Process().children(recursive=True))}
    finally:
        os.killpg(child.pid, 9)
        child.communicate()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [(10, 100), (20, 200), (None, 300)]),
        ("1", [(20, 200)]),
        ("GPU-second, 0", [(20, 200), (10, 100)]),
        ("7", []),
        ("", []),
        ("-1", []),
    ],
)
def test_the_gpus_that_it_may_use(tmp_path: Path, visible: str | None, expected: list[tuple[int | None, int]]) -> None:
    (tmp_path / "nvml.c").write_text(LIBRARY)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "nvml.c")], check=True)
    environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    program = "import json; from dataclasses import asdict; from tuner.worker.usage import UsageMeter\n"
    usage = measured(program + "print(json.dumps(asdict(UsageMeter().read())))", **environment)
    assert [(gpu["percent"], gpu["memory_bytes"]) for gpu in usage["gpus"]] == expected
    assert all(gpu["total_bytes"] == 1000 for gpu in usage["gpus"])


def test_what_is_stored_comes_back(db: Database) -> None:
    worker = uuid4()
    register(db, worker, host="here", pid=1, device="cuda:0", slots=1, version="1")
    (before,) = list_workers(db)
    assert before.usage is None
    gpu = GpuUsage(percent=None, memory_bytes=1, total_bytes=2)
    usage = Usage(busy_cores=0.5, cores=2, memory_bytes=None, available_bytes=3, gpus=(gpu,))
    set_usage(db, worker, usage)
    (after,) = list_workers(db)
    assert after.usage == usage


def test_a_reading_can_be_stored(db: Database) -> None:
    worker = uuid4()
    register(db, worker, host="here", pid=1, device="cpu", slots=1, version="1")
    usage = UsageMeter().read()
    set_usage(db, worker, usage)
    assert list_workers(db)[0].usage == usage
