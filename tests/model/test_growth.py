"""Growing changes no result and keeps the optimizer's state of old blocks, and the new blocks learn."""

import pytest
import torch

from braingpt.errors import UserError
from braingpt.model.config import EarlyExitConfig
from braingpt.model.growth import grow
from braingpt.model.growth_stages import stage_config, stages
from braingpt.optim.optimizer import build_optimizer, pack_state, unpack_state
from braingpt.recipes import TrainConfig
from tests.conftest import SMALL, awake

IDS = torch.randint(0, 97, (2, 20), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["dense", "v1", "v2", "v2-memory"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_growing_changes_nothing_and_then_learns(name, optimizer):
    final = SMALL[name].model_copy(update={"layers": 4})
    config = TrainConfig(optimizer=optimizer, lr=1e-2)
    model = awake(stage_config(final, 2)).train()
    steps = build_optimizer(model, config)
    for _ in range(2):
        model(IDS[:, :-1], IDS[:, 1:]).loss.backward()
        steps.step()
        steps.zero_grad()
        model.after_step()
    grown = grow(model, final)
    assert len(grown.blocks) == 4 and grown.training
    for mode in (True, False):
        assert torch.equal(grown.train(mode)(IDS).logits, model.train(mode)(IDS).logits)
    after = build_optimizer(grown, config)
    unpack_state(grown, after, pack_state(model, steps))
    kept, whole = pack_state(model, steps), pack_state(grown, after)
    assert kept.keys() == whole.keys() and all(torch.equal(value, whole[key]) for key, value in kept.items())
    grown.train()
    before = {key: value.clone() for key, value in grown.state_dict().items()}
    # the first step moves the output maps off zero, the second what lies before them
    for _ in range(2):
        grown(IDS[:, :-1], IDS[:, 1:]).loss.backward()
        after.step()
        after.zero_grad()
    moved = {key for key, value in grown.state_dict().items() if not torch.equal(value, before[key])}
    new = {
        key for key, _ in grown.named_parameters() if key.startswith("blocks.3.") and key.endswith("weight")
    }
    assert new and new <= moved


def test_stages_rise_to_all_layers():
    assert stages(24) == (2, 4, 8, 12, 24) and stages(48) == (2, 4, 8, 12, 48)
    assert stages(12) == (1, 2, 4, 6, 12) and stages(6) == (1, 2, 3, 6) and stages(1) == (1,)


def test_what_cannot_grow_is_refused():
    dense = SMALL["dense"]
    with pytest.raises(UserError, match="adaptive depth"):
        stage_config(SMALL["v2-depth"], 2)
    with pytest.raises(UserError, match="other settings"):
        grow(awake(dense), dense.model_copy(update={"layers": 4, "mlp": 32}))
    with pytest.raises(UserError, match="1 to 2 layers"):
        stage_config(dense, 3)


def test_settings_of_layers_that_are_not_there_yet_wait():
    v2 = SMALL["v2"].model_copy(
        update={"layers": 6, "attention": SMALL["v2"].attention.model_copy(update={"layers": (1, 4)})}
    )
    assert stage_config(v2, 3).attention.layers == (1,) and stage_config(v2, 6) == v2
    v1 = SMALL["v1"].model_copy(
        update={"layers": 6, "early_exit": EarlyExitConfig(places=(1, 3), threshold=0.5)}
    )
    assert stage_config(v1, 3).early_exit.places == (1,) and stage_config(v1, 1).early_exit.places == ()
    for stage in (stage_config(v2, 3), stage_config(v1, 3), stage_config(v1, 1)):
        assert type(stage).model_validate(stage.model_dump()) == stage, "a stage is a model in its own right"
