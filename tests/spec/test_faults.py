"""A wrong study file is refused with one line for each fault: where, which key, what is wrong, what would be right."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from tuner.errors import InvalidSpec
from tuner.spec.grid import Grid
from tuner.spec.study import read_spec

DIGITS = "study: s\ndata: {name: digits}\nbudget: {trials: 9}\n"
CNN = DIGITS + "model: {family: cnn}\n"
ETTH1 = "study: s\ndata: {name: etth1}\nbudget: {trials: 9}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        # keys
        (CNN + "training: {epohs: 3}", "5: training.epohs: unknown key; did you mean training.epochs?"),
        (CNN + "learning_rate: 0.1", "5: learning_rate: unknown key; did you mean training.learning_rate?"),
        (CNN + "training.epochs: 2", "5: training.epochs: unknown key; write it as training: {epochs: ...}"),
        (
            CNN + "zzz: 0.1",
            "5: zzz: unknown key; known here: study, data, model, training, objective, search, budget",
        ),
        (
            DIGITS + "model: {family: cnn, cell: gru}",
            "4: model.cell: unknown key; known here: family, layers, channels,",
        ),
        ("data: {name: digits}\nmodel: {family: cnn}\nbudget: {trials: 9}", "1: study: missing; name the study ("),
        ("study: s\nmodel: {family: cnn}\nbudget: {trials: 9}", "1: data: missing; name the data set ("),
        ("study: s\ndata: {name: digits}\nbudget: {trials: 9}", "1: model: missing; name a family ("),
        (DIGITS + "model: {layers: 3}", "4: model.family: missing; one of cnn, rnn, mlp"),
        (
            "study: s\ndata: digits\nmodel: {family: cnn}\nbudget: {trials: 9}",
            "2: data: 'digits' is not a mapping; name",
        ),
        (CNN + "search: tpe", "5: search: 'tpe' is not a mapping; name the method (search: {method: tpe})"),
        (
            "study: s\ndata: {name: digits}\nmodel: {family: cnn}\nbudget: 40",
            "4: budget: 40 is not a mapping; name what is limited (budget: {trials: 40})",
        ),
        # names
        ("study: a b\n" + CNN[9:], "1: study: 'a b' is not a study's name; letters, digits,"),
        ("study: 2024\n" + CNN[9:], "1: study: 2024 is not text; write a word, or put it in quotes"),
        ("study: s\ndata: {name: digitz}\n" + CNN[30:], "2: data.name: 'digitz' is not known; did you mean digits?"),
        (DIGITS + "model: {family: transformer}", "4: model.family: 'transformer' is not known; one of cnn, rnn, mlp"),
        (
            CNN + "training: {optimizer: adamm}",
            "5: training.optimizer: 'adamm' is not known; did you mean adam?",
        ),
        (CNN + "objective: {metric: acuracy}", "5: objective.metric: 'acuracy' is not known; did you mean accuracy?"),
        (CNN + "search: {method: bayes}", "5: search.method: 'bayes' is not known; one of grid, random, tpe"),
        (CNN + "search: {pruner: medain}", "5: search.pruner: 'medain' is not known; did you mean median?"),
        (
            CNN + "search: {pruner: {name: medain}}",
            "5: search.pruner.name: 'medain' is not known; did you mean median?",
        ),
        (CNN + "search: {pruner: {name: median, patience: 3}}", "5: search.pruner.patience: unknown key; known here:"),
        (CNN + "search: {pruner: }", "5: search.pruner: nothing is not a mapping; name one (pruner: {name: median})"),
        (CNN + "search: {pruner: 3}", "5: search.pruner: 3 is not a mapping; name one (pruner: {name: median})"),
        (CNN + "search: {pruner: [a]}", "5: search.pruner: a list is not a mapping; name one (pruner: {name: median})"),
        (
            CNN + "search: {pruner: {name: patient, pruner: true}}",
            "5: search.pruner.pruner: true is not a mapping; name one (pruner: {name: median})",
        ),
        # types and bounds
        (
            CNN + "training: {learning_rate: abc}",
            "5: training.learning_rate: 'abc' is not a number; write one, such as",
        ),
        (
            CNN + "training: {batch_size: '32'}",
            "5: training.batch_size: '32' is not a whole number; write one, such as",
        ),
        (CNN + "training: {batch_size: 3.5}", "5: training.batch_size: 3.5 is not a whole number; write one, such as"),
        (CNN + "training: {batch_size: 64.0}", "5: training.batch_size: 64.0 is not a whole number; write 64"),
        (CNN + "training: {batch_size: true}", "5: training.batch_size: true is not a whole number; write one, such"),
        (CNN + "training: {batch_size: 0}", "5: training.batch_size: 0 is out of bounds; it must be at least 1"),
        (CNN + "search: {seed: 2147483648}", "5: search.seed: 2147483648 is out of bounds; it must be at most 2,147,"),
        (CNN + "training: {learning_rate: 0}", "5: training.learning_rate: 0 is out of bounds; it must be more than 0"),
        (CNN + "training: {learning_rate: .inf}", "5: training.learning_rate: .inf is not a finite number; write a"),
        (CNN + "training: {epochs: }", "5: training.epochs: nothing is not a whole number; write one, such as 32"),
        (CNN + "training:", "5: training: nothing is not a mapping; write {key: value, ...}"),
        (DIGITS + "model: {family: cnn, batch_norm: no}", "4: model.batch_norm: 'no' is not true or false; write true"),
        (
            CNN + "training: {epochs: {low: 1, high: 9}}",
            "5: training.epochs: cannot be searched (the search's resource: pruners end trials early); give one value",
        ),
        # ranges and choices
        (
            CNN + "training: {batch_size: {low: 64, high: 8}}",
            "5: training.batch_size: low 64 is above high 8; swap them",
        ),
        (CNN + "training: {batch_size: {low: 8}}", "5: training.batch_size.high: missing; a range has low and high"),
        (CNN + "training: {batch_size: {low: 8, hihg: 9}}", "5: training.batch_size.hihg: unknown key; did you mean"),
        (
            CNN + "training: {batch_size: {low: 0, high: 9}}",
            "5: training.batch_size.low: 0 is out of bounds; it must be",
        ),
        (
            CNN + "training: {weight_decay: {low: 0, high: 0.1, log: true}}",
            "5: training.weight_decay: a logarithmic range begins above 0, not at 0; raise low or leave out log",
        ),
        (
            CNN + "training: {batch_size: {low: 8, high: 16, log: true, step: 4}}",
            "5: training.batch_size: a logarithmic range has no step; leave out log or step",
        ),
        (
            CNN + "training: {batch_size: {low: 8, high: 17, step: 4}}",
            "5: training.batch_size: steps of 4 from 8 do not end at high 17; the last would be 16",
        ),
        (
            CNN + "training: {momentum: {low: 0.0, high: 0.9, step: 0.4}}",
            "5: training.momentum: steps of 0.4 from 0 do not end at high 0.9; the last would be 0.8",
        ),
        (
            CNN + "training: {momentum: {low: 0, high: 0.9, step: 0}}",
            "5: training.momentum.step: 0 is out of bounds; it",
        ),
        (
            CNN + "training: {batch_size: {choices: [8], value: 8}}",
            "5: training.batch_size.value: value and choices exclude each other; leave one out",
        ),
        (
            CNN + "training: {batch_size: [{value: 8, when: {training.optimizer: sgd}, choices: [8]}]}",
            "5: training.batch_size[0].value: value and choices exclude each other; leave one out",
        ),
        (
            CNN + "training: {batch_size: {value: 8, low: 4}}",
            "5: training.batch_size.low: low and value exclude each other; leave one out",
        ),
        (
            DIGITS + "model: {family: cnn, channels: {value: 8, each: model.layers}}",
            "4: model.channels.each: each and value exclude each other; leave one out",
        ),
        (
            CNN + "training: {batch_size: {choice: [8, 9]}}",
            "5: training.batch_size.choice: unknown key; did you mean training.batch_size.choices?",
        ),
        (
            CNN + "training: {batch_size: {valu: 8, when: {training.optimizer: sgd}}}",
            "5: training.batch_size.valu: unknown key; did you mean training.batch_size.value?",
        ),
        (
            CNN + "training: {batch_size: {values: [8, 9]}}",
            "5: training.batch_size.values: unknown key; did you mean training.batch_size.choices?",
        ),
        (CNN + "training: {optimizer: {choices: []}}", "5: training.optimizer.choices: is empty; give at least one"),
        (
            CNN + "training: {optimizer: {choices: [adamw, sgdd]}}",
            "5: training.optimizer.choices[1]: 'sgdd' is not known; did you mean sgd?",
        ),
        (
            CNN + "training: {learning_rate: {choices: [1, 0.1, 1.0]}}",
            "5: training.learning_rate.choices: 1.0 stands there twice; list each value once",
        ),
        (
            CNN + "training: {optimizer: {low: 1, high: 2}}",
            "5: training.optimizer: has no range; list its values: {choices: [...]}",
        ),
        (
            CNN + "training: {optimizer: [sgd, adam]}",
            "5: training.optimizer: has one value, not a list; to search among",
        ),
        (
            CNN + "training: {batch_size: {low: 1, high: 9, each: model.layers}}",
            "5: training.batch_size.each: unknown key; known here: when, low, high, log, step, points",
        ),
        # conditions and cases
        (
            CNN + "training: {momentum: {value: 0.9, when: {training.optimzer: sgd}}}",
            "5: training.momentum.when.training.optimzer: unknown knob; did you mean training.optimizer?",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {optimizer: sgd}}}",
            "5: training.momentum.when.optimizer: unknown knob; did you mean training.optimizer?",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {training.optimizer: sdg}}}",
            "5: training.momentum.when.training.optimizer: training.optimizer is never 'sdg'; did you mean sgd?",
        ),
        (
            CNN + "training: {optimizer: {choices: [adam, adamw]}, "
            "momentum: {value: 0.9, when: {training.optimizer: sgd}}}",
            "5: training.momentum.when.training.optimizer: training.optimizer is never sgd; it is adam, adamw",
        ),
        (
            DIGITS
            + "model: {family: mlp, layers: {low: 1, high: 3}, dropout: {value: 0.5, when: {model.layers: [3, 4]}}}",
            "4: model.dropout.when.model.layers: model.layers is never 4; it is from 1 to 3",
        ),
        (
            CNN
            + "training: {learning_rate: {low: 0.1, high: 1}, momentum: {value: 0, when: {training.learning_rate: 1}}}",
            "5: training.momentum.when.training.learning_rate: training.learning_rate is a range of real numbers; a",
        ),
        (
            DIGITS + "model: {family: mlp, units: {low: 8, high: 9, each: model.layers}, "
            "dropout: {value: 0, when: {model.units: 8}}}",
            "4: model.dropout.when.model.units: model.units has a value for each layer; a condition needs a knob",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {}}}",
            "5: training.momentum.when: is empty; give at least one",
        ),
        (
            CNN + "training: {momentum: {value: 0.9}}",
            "5: training.momentum.when: missing; a value that always holds is written without a mapping",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: training.optimizer}}",
            "5: training.momentum.when: 'training.optimizer' is not a mapping; name a knob and its value (when: {",
        ),
        (
            CNN + "training: {momentum: {choices: [0.5, 0.9], when: }}",
            "5: training.momentum.when: nothing is not a mapping; name a knob and its value (when: {",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {training: {optimizer: sgd}}}}",
            "5: training.momentum.when.training: a mapping is no condition; write training.optimizer: sgd",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {model.cell: lstm}}}",
            "5: training.momentum.when.model.cell: unknown knob; cell belongs to rnn",
        ),
        (
            CNN + "training: {momentum: {value: 0.9, when: {model.units: 8}}}",
            "5: training.momentum.when.model.units: unknown knob; units belongs to rnn, mlp",
        ),
        (
            CNN + "training: {momentum: {choices: [0.5, 0.9], when: {training.momentum: 0.5}}}",
            "5: training.momentum.when.training.momentum: a knob cannot depend on itself",
        ),
        (
            CNN + "training: {batch_size: {choices: [8, 9], when: {training.optimizer: sgd}}, "
            "optimizer: {choices: [sgd, adam], when: {training.batch_size: 8}}}",
            "5: training.batch_size: conditions go in a circle: training.batch_size needs training.optimizer needs "
            "training.batch_size; let one of them depend on none of the others",
        ),
        (
            CNN + "training: {momentum: [{low: 0, high: 0.9, when: {training.optimizer: sgd}}, {choices: [0.5]}]}",
            "5: training.momentum[1]: a case without a condition; give each case its own: when: {training.optimizer:",
        ),
        (
            CNN + "training: {momentum: [{low: 0, high: 0.9, when: {training.optimizer: [sgd, adam]}}, "
            "{low: 0, high: 0.5, when: {training.optimizer: [rmsprop, sgd]}}]}",
            "5: training.momentum[1]: may hold together with training.momentum[0]; make their conditions exclude",
        ),
        (
            DIGITS + "model: {family: mlp, layers: {low: 1, high: 3}, units: [64, 32]}",
            "4: model.units: lists 2 layers, but model.layers may be 1; fix model.layers or give one value",
        ),
        (
            DIGITS + "model: {family: cnn, batch_norm: {choices: [true, false]}, channels: [8, 16, 32], "
            "layers: {value: 3, when: {model.batch_norm: true}}}",
            "4: model.channels: lists 3 layers, but model.layers may be 2 by default; fix model.layers or give one",
        ),
        (
            DIGITS + "model: {family: cnn, batch_norm: {choices: [true, false]}, layers: {value: 3, when: "
            "{model.batch_norm: true}}, channels: {value: [8, 16], when: {model.batch_norm: true}}}",
            "4: model.channels: lists 2 layers, but model.layers may be 3; fix model.layers or give one value",
        ),
        # what does not go together
        (
            "study: s\ndata: {name: spiral}\nbudget: {trials: 9}\nmodel: {family: cnn}",
            "4: model.family: cnn does not read spiral, whose examples are of kind vector; use mlp",
        ),
        (
            ETTH1 + "model: {family: rnn}\nobjective: {metric: accuracy}",
            "5: objective.metric: accuracy is no metric of a forecast; one of mse, mae, loss",
        ),
        (
            DIGITS + "model: {family: rnn, relative_to_last: {choices: [true, false]}}",
            "4: model.relative_to_last: digits is no forecast: there is no last value; leave it out",
        ),
        (
            "study: s\ndata: {name: etth1, inputs: [HUFL]}\nbudget: {trials: 9}\n"
            "model: {family: rnn, relative_to_last: true}",
            "4: model.relative_to_last: the model does not see OT; add it to data.inputs, or leave",
        ),
        (
            CNN.replace("digits", "digits, split: {validation: 0.5, test: 0.5}"),
            "2: data.split: validation 0.5 and test 0.5 leave nothing to train on; make them smaller",
        ),
        (
            "study: s\ndata: {name: digits}\nsearch: {method: grid}\n"
            "model: {family: cnn, channels: {low: 1, high: 65536}, dense_units: {low: 1, high: 65536}}",
            "1: budget.trials: missing; the grid has 4,294,967,296 points, a study at most 1,000,000 trials (budget:",
        ),
        (
            CNN + "training: {learning_rate: {low: 0.1, high: 1}}\nsearch: {method: grid}",
            "5: training.learning_rate: a grid needs a finite list here; add points (points: 4) or step, or",
        ),
        (
            "study: s\ndata: {name: digits}\nmodel: {family: cnn}",
            "1: budget: missing; tpe search needs an end: trials, total_epochs or seconds (budget: {trials: 40})",
        ),
        (CNN + "budget: {trials: 0}", "5: budget: a second time; it stands at study.yaml:3 already, leave one out"),
        ("study: s\ndata: {name: digits}\nmodel: {family: cnn}\nbudget: {trials: 0}", "4: budget.trials: 0 is out of"),
        # YAML
        (CNN + "training: &t {epochs: 3}", "5: training: an anchor (&); write values out where they are used"),
        (CNN + "training: {epochs: !!int 3}", "5: training.epochs: a tag (tag:yaml.org,2002:int); leave it out"),
        (CNN + "training: {epochs: 3, epochs: 4}", "5: training.epochs: a second time; it stands at study.yaml:5"),
        (CNN + "training: {epochs: 3", "5: not YAML: expected ',' or '}', but got '<stream end>'"),
        ("a:\n\tb: 1", "2: not YAML: found character '\\t' that cannot start any token"),
        (CNN + "---\nstudy: t", "5: a second document; a study file holds one"),
        ("", "1: the file holds nothing; it needs keys such as study, data and model"),
        ("- study: s", "1: the file holds a list; it needs keys such as study, data and model"),
        ("training: " + "[" * 100, "1: training: nested more than 20 deep; a study file has a few levels"),
        ("training: [" + "1," * 9_000 + "]", "1: training: more than 5000 values; a study file has some dozens"),
        ('study: "a\\0b"\n' + CNN[9:], "1: study: a character that is not text; leave it out"),
        (CNN + "training: {epochs: 99999999999999999999}", "5: training.epochs: 99999999999999999999... does not fit"),
    ],
)
def test_one_fault_is_one_line_that_names_its_place(faults, text: str, line: str) -> None:
    [fault] = faults(text)
    assert fault.startswith(f"study.yaml:{line}")
    assert "; " in fault or "not YAML: " in fault  # what would be right, which YAML's parser does not say


def test_all_faults_are_told_at_once_in_the_order_of_the_file(faults) -> None:
    lines = faults(
        """\
        study: s
        data: {name: spiral, split: {validation: 0.5, test: 0.6}}
        model: {family: cnn, kernal: 5, dropout: {low: 0.5, high: 0.1}}
        training:
          batch_size: many
          momentum: {value: 0.9, when: {training.optimizr: sgd}}
          learning_rate: {low: 0.1, high: 1}
        objective: {metric: mae}
        search: {seed: -1, method: grid}
        budget: {trials: 0}
        """
    )
    assert [line.split(": ")[1] for line in lines] == [
        "data.split",
        "model.family",
        "model.kernal",
        "model.dropout",
        "training.batch_size",
        "training.momentum.when.training.optimizr",
        "training.learning_rate",
        "objective.metric",
        "search.seed",
        "budget.trials",
    ]
    assert [int(line.split(":")[1]) for line in lines] == [2, 3, 3, 3, 5, 6, 7, 8, 9, 10]


def test_a_range_in_other_words_is_led_to_low_and_high(faults) -> None:
    assert faults(CNN + "training: {batch_size: {min: 8, max: 64}}") == [
        "study.yaml:5: training.batch_size.min: unknown key; did you mean training.batch_size.low?",
        "study.yaml:5: training.batch_size.max: unknown key; did you mean training.batch_size.high?",
    ]


def test_what_rests_on_a_wrong_key_is_no_fault_of_its_own(faults) -> None:
    text = CNN.replace("digits", "digitz").replace("budget", "bugdet")
    lines = faults(text + "objective: {metric: mse}\ntraining: {optimizer: sdg}\n")
    assert [line.split(": ")[1] for line in lines] == ["data.name", "bugdet", "training.optimizer"]


def test_an_unfinished_override_is_told_beside_the_faults_of_the_file(faults) -> None:
    lines = faults(
        CNN + "trainin: {}", "training.epohs=2", "model.layers={low: 1, hgh: 2}", "epochs", "training.seed=["
    )
    assert lines == [
        "--set epochs: not an override; write --set training.epochs=2",
        "--set training.seed: not YAML: expected the node content, but found '<stream end>'",
        "study.yaml:5: trainin: unknown key; did you mean training?",
        "--set training.epohs: unknown key; did you mean training.epochs?",
        "--set model.layers.hgh: unknown key; did you mean model.layers.high?",
    ]


def test_a_bad_name_is_told_as_the_options_fault(faults) -> None:
    [line] = faults(CNN, name="a/b")
    assert line.startswith("--name: 'a/b' is not a study's name; letters, digits")


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    latin, huge = tmp_path / "latin.yaml", tmp_path / "huge.yaml"
    latin.write_bytes("study: s\n# Gr\xf6\xdfe\n".encode("latin-1"))
    huge.write_bytes(b"# " + b"x" * 10_000_000)
    expected = {
        tmp_path / "missing.yaml": "no such file",
        tmp_path: "a folder; name a study file in it",
        huge: "larger than 1 MB; a study file has some dozen lines",
        Path(f"{latin}:2"): "no such file",
    }
    for file, message in expected.items():
        with pytest.raises(InvalidSpec) as refusal:
            read_spec(file)
        assert str(refusal.value) == f"{file}: {message}"
    with pytest.raises(InvalidSpec) as refusal:
        read_spec(latin)
    assert str(refusal.value) == f"{latin}:2: not UTF-8; save the file as UTF-8 text"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.touch(mode=0)
    with pytest.raises(InvalidSpec, match=r"cannot be read: Permission denied"):
        read_spec(file)


def test_no_garbage_leads_to_anything_but_faults(read) -> None:
    """Pieces of a right file in wrong places: refused in single lines, or read and resolved."""
    example = Path(__file__).with_name("example.yaml").read_text()
    pieces = re.split(r"([\w.]+|\s+|[^\w\s])", example)
    words = [*pieces, "each", "null", "1e400", "[", "]", "{", "}", "model.layers", '"', "\\ud800", "&a", "*a", "!!str"]
    random_ = random.Random(0)
    outcomes = set()
    for _ in range(300):
        changed = list(pieces)
        for _ in range(random_.randint(1, 3)):
            changed[random_.randrange(len(changed))] = random_.choice(words)
        try:
            space = read("".join(changed)).space
        except InvalidSpec as refusal:
            outcomes.add("refused" if all(len(fault.splitlines()) == 1 for fault in refusal.faults) else "broken lines")
        else:
            outcomes.add("read")
            grid = Grid(space)
            assert all(space.resolve(grid.point(index)) for index in (0, grid.size - 1) if grid.size)
    assert outcomes == {"refused", "read"}
