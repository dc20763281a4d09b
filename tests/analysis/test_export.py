from tuner.analysis.anytime import FinishedTrial, Run, steps
from tuner.analysis.export import to_csv
from tuner.states import TrialState


def test_a_line_for_each_finished_trial_in_the_order_of_finishing() -> None:
    trials = [
        FinishedTrial(number=1, state=TrialState.FAIL, value=None, epochs=0, seconds=0.25),
        FinishedTrial(number=0, state=TrialState.COMPLETE, value=0.75, epochs=4, seconds=1.5),
        FinishedTrial(number=2, state=TrialState.PRUNED, value=0.9, epochs=2, seconds=0.5),
    ]
    runs = [
        Run(study="s.tpe.7", method="tpe", seed=7, ended=True, steps=steps(trials, "maximize")),
        Run(study="s.grid.7", method="grid", seed=7, ended=False, steps=()),
    ]
    assert to_csv(runs).splitlines() == [
        "method,seed,finished,number,state,value,best_so_far,cumulative_epochs,cumulative_seconds",
        "tpe,7,1,1,FAIL,,,0,0.250",
        "tpe,7,2,0,COMPLETE,0.75,0.75,4,1.750",
        "tpe,7,3,2,PRUNED,0.9,0.75,6,2.250",
    ]
