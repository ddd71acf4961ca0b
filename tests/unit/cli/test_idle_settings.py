import pytest
from hydra import compose, initialize_config_dir

from masa.cli.config_store import conf_dir
from masa.cli.idle_settings import _causes, idle_settings
from masa.config import load

pytestmark = pytest.mark.usefixtures("_conf")


@pytest.fixture
def _conf():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def algorithm(*overrides):
    return load(compose("config", [*overrides, "++output_dir=."])).algorithm


def idle(*overrides):
    settings = algorithm(*overrides)
    return {
        line.partition(" changes nothing, as ")[::2] for line in idle_settings(overrides, settings)
    }


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["algorithm=grpo", "algorithm.bc.coef=.3", "seed=1"],
            {("algorithm.bc.coef=.3", "algorithm.bc.mode is off")},
        ),
        (
            ["algorithm=grpo", "++algorithm.meta.coef=3", "algorithm.control.start_step=3"],
            {
                ("++algorithm.meta.coef=3", "algorithm.meta.enabled is false"),
                ("algorithm.control.start_step=3", "neither gate, cutoff nor hints are on"),
            },
        ),
        (
            ["algorithm=masa_cloned", "algorithm.meta.extra_until=9", "algorithm.bc.coef=.1"],
            {("algorithm.meta.extra_until=9", "algorithm.meta.coef is 0")},
        ),
        (
            ["algorithm=masa_calibrated", "algorithm.bc.mode=separate", "algorithm.bc.coef=.1",
             "algorithm.bc.learning_rate=.1", "algorithm.bc.min_reward=.1"],
            {
                ("algorithm.bc.coef=.1", "algorithm.bc.mode is separate"),
                ("algorithm.bc.min_reward=.1", "algorithm.bc.target is outcome"),
            },
        ),
        (
            ["algorithm=masa_efficient", "algorithm.selection.max_tokens=2",
             "algorithm.mismatch_high=3", "algorithm.cutoff.max_lost=.1"],
            {
                ("algorithm.selection.max_tokens=2", "algorithm.selection.refill is false"),
                ("algorithm.mismatch_high=3", "algorithm.mismatch is none"),
            },
        ),
        (
            ["algorithm=masa_efficient", "algorithm.gate.min_precision=.6"],
            set(),
        ),
        (
            ["algorithm=dapo", "algorithm.control.count_skipped=false", "algorithm.loss=cispo",
             "algorithm.dual_clip=3", "algorithm.selection.max_draws=2",
             "algorithm.token_mean=joint"],
            {
                ("algorithm.control.count_skipped=false", "algorithm.dynamic_sampling is 2"),
                ("algorithm.dual_clip=3", "algorithm.loss is cispo"),
                ("algorithm.selection.max_draws=2", "algorithm.selection.refill is false"),
                ("algorithm.token_mean=joint", "algorithm.meta.enabled is false"),
            },
        ),
        (
            ["algorithm=masa_calibrated", "algorithm.bc.coef=0", "algorithm.bc.pool_size=9"],
            {("algorithm.bc.pool_size=9", "algorithm.bc.coef is 0")},
        ),
        (["algorithm=greso", "optimizer.lr=1", "task.config.seed=3"], set()),
    ],
)  # fmt: skip
def test_what_changes_nothing(overrides, expected):
    assert idle(*overrides) == expected


@pytest.mark.parametrize("preset", ["grpo", "masa_calibrated"])
def test_all_of_them_are_settings(preset):
    settings = algorithm(f"algorithm={preset}")
    for _, names in _causes(settings).values():
        for name in names.split():
            group, _, key = name.rpartition(".")
            assert hasattr(getattr(settings, group) if group else settings, key), name
