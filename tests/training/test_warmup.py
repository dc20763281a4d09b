from __future__ import annotations

import os
import subprocess
import sys

THREADS = "import os; print(len(os.listdir('/proc/self/task')))"


def output(*lines: str) -> list[str]:
    """What a fresh process prints."""
    code = "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_warm_process_has_one_thread_and_its_children_need_no_more_imports() -> None:
    printed = output(
        "from tuner.training.warmup import warm_up",
        "warm_up()",
        THREADS,
        "import sys, torch",
        "print(torch.cuda.is_initialized())",
        "if os.fork():",
        "    print(os.wait()[1])",
        "    sys.exit()",
        "before = set(sys.modules)",
        "from tuner.spec.config import TrainingConfig",
        "from tuner.training.models import materialise",
        "from tuner.training.optimizers import OPTIMIZERS, build_optimizer",
        "with torch.device('meta'):",
        "    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 2))",
        "materialise(model, torch.Generator())",
        "for name in OPTIMIZERS:",
        "    optimizer = build_optimizer(model, TrainingConfig(optimizer=name), torch.device('cpu'))",
        "    model(torch.ones(4, 1, 8, 8)).sum().backward()",
        "    optimizer.step()",
        "    optimizer.zero_grad()",
        "    optimizer.load_state_dict(optimizer.state_dict())",
        "os._exit(min(255, len(set(sys.modules) - before)))",
    )
    threads, cuda, modules = printed
    assert (threads, cuda) == ("1", "False")
    assert os.waitstatus_to_exitcode(int(modules)) < 5  # hundreds without the warm-up, or with torch's compiler


def test_importing_training_leaves_the_process_with_one_thread() -> None:
    environment = "import os; os.environ['OPENBLAS_NUM_THREADS'] = '1'"
    assert output(environment, "import tuner.training.loop", THREADS) == ["1"]


def test_importing_the_package_is_light_and_its_functions_come_when_asked_for() -> None:
    printed = output(
        "import sys, tuner",
        "print(any(name in sys.modules for name in ('torch', 'optuna', 'numpy', 'sqlalchemy')))",
        "print(callable(tuner.load_model), callable(tuner.load_study))",
        "print(hasattr(tuner, 'load_nothing'))",
    )
    assert printed == ["False", "True", "True", "False"]
