"""The layers' own counters against counts taken from outside: hooks on what goes in and out, torch's counter
of operations, closed forms.
"""

from collections import defaultdict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from braingpt.inspection.trace import trace, work_per_token
from braingpt.model.columns.columns import SilencedColumns, SparseColumns
from braingpt.model.layers import MLP
from braingpt.model.memory.delta_rule import DeltaMemory
from braingpt.model.mixers.dendritic_attention import DendriticAttention
from tests.conftest import SMALL, awake

WINDOWS = [
    torch.randint(97, shape, generator=torch.Generator().manual_seed(1)) for shape in ((3, 40), (1, 23))
]


class Outside:
    """Sums by layer of what passes through modules, without asking them."""

    def __init__(self, model):
        self.sums, self.hooks = defaultdict(int), []
        for layer, block in enumerate(model.blocks):
            for module in block.modules():
                self._watch(layer, module)

    def _watch(self, layer, module):
        def add(name, amount):
            self.sums[layer, name] += int(amount)

        if isinstance(module, MLP):
            self._hook(module.up, lambda args, out: add("neurons_fired", (out > 0).sum()))
        elif isinstance(module, SilencedColumns):
            self._hook(module.down, lambda args, out: add("neurons_fired", (args[0] != 0).sum()))
        elif isinstance(module, SparseColumns):

            def fired(args, out):
                x_ND, winner_NA = args[0], out[0]
                act_NAW = torch.einsum("nd,nawd->naw", x_ND, module.weight[winner_NA, 0])
                add("neurons_fired", (act_NAW > 0).sum())
                add("columns_active", winner_NA.numel() + len(winner_NA) * module.columns.shared)

            self._hook(module.competition, fired)
        elif isinstance(module, DendriticAttention):
            self._hook(
                module.gate,
                lambda args, out: add("dendrites_open", (out.sigmoid() > module.config.gate_threshold).sum()),
            )
        elif isinstance(module, DeltaMemory):
            heads = module.config.heads

            def bound(args, out):
                beta = out[..., -2 * heads : -heads]
                add("memory_reads", beta.numel())
                # Its sigmoid is above a half.
                add("memory_writes", (beta > 0).sum())

            self._hook(module.into, bound)

    def _hook(self, module, look):
        self.hooks.append(module.register_forward_hook(lambda _module, args, out: look(args, out)))


def test_counters_agree_to_the_unit_with_what_hooks_see(small):
    outside = Outside(small)
    with small.recording() as records:
        found = trace(small, WINDOWS)
    for layer, record in enumerate(records):
        assert record.tokens == len(found.ids) == 143
        assert record.arrived == found.arrived[layer].sum() and record.attended == found.attended[layer].sum()
        for (at, name), amount in outside.sums.items():
            assert at != layer or getattr(record, name) == amount, (layer, name)
        if record.column_load is not None:
            won = found.winners[layer][found.arrived[layer]]
            assert torch.equal(
                record.column_load, torch.bincount(won.flatten(), minlength=found.columns[layer])
            )
    assert outside.sums


def test_counters_agree_to_the_unit_while_a_text_is_written(small):
    state, ids = small.new_state(2), WINDOWS[0][:2]
    small.eval()
    with torch.no_grad():
        small(ids[:, :9], state=state)
        outside = Outside(small)
        with small.recording() as records:
            for place in range(9, 30):
                small.step(ids[:, place], state)
    for layer, record in enumerate(records):
        assert record.tokens == 42 and record.keys_kept <= record.keys_possible
        assert all(
            getattr(record, name) == amount for (at, name), amount in outside.sums.items() if at == layer
        )


def test_keys_are_the_pairs_that_the_rule_allows(small):
    with small.recording() as records:
        found = trace(small, WINDOWS[:1])
    for layer, (record, block) in enumerate(zip(records, small.blocks, strict=True)):
        if record.mixer in ("mamba", "memory", "none"):
            assert record.keys_kept == record.keys_possible == 0
            continue
        chosen = found.attended[layer].view(3, 40).sum(1).tolist()
        pairs = sum(n * (n + 1) // 2 for n in chosen) * block.mixer.heads
        place = torch.arange(1, 41).repeat(3)[found.arrived[layer]]
        assert record.keys_possible == block.mixer.heads * int(place.sum())
        if record.mixer == "dendritic":
            assert record.keys_kept < pairs and record.keys_kept % 2 == 0
        else:
            assert record.keys_kept == pairs


def test_work_of_columns_is_the_closed_form_and_what_torch_counts(small, monkeypatch):
    # torch does not see MKL's own products
    monkeypatch.setenv("BRAINGPT_KERNELS", "columns=per column")
    ids = WINDOWS[0]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        small.eval()(ids)
    counted = counter.get_flop_counts()
    with small.recording() as again:
        mixers = [module for block in small.blocks for module in block.mixer.modules()]
        for module in [*small.exits, *mixers, *(small.lexical.readers if small.lexical else ())]:
            if hasattr(module, "record"):
                # What is left is the MLP's.
                module.record = None
        trace(small, [ids])
    for layer, (record, block) in enumerate(zip(again, small.blocks, strict=True)):
        theirs = sum(counted[f"LanguageModel.blocks.{layer}.mlp"].values())
        assert record.flops == theirs == block.mlp.flops() * record.arrived, (layer, record.mixer)


def test_what_is_spent_on_a_token_follows_what_becomes_of_it(small):
    found = trace(small, WINDOWS)
    share = work_per_token(small, found, 40)
    assert ((share > 0) & (share <= 1 + 1e-9)).all()
    mixed = [block.mixer.kind != "none" for block in small.blocks]
    everything = (found.depth() == len(small.blocks)) & found.attended[mixed].all(0)
    assert torch.allclose(share[everything], torch.ones_like(share[everything]))
    assert not everything.all() or share.min() > 1 - 1e-9


def test_a_token_that_leaves_v1_early_goes_no_deeper():
    model = awake(SMALL["v1"].model_copy(update={"layers": 4}))
    model.set_exit_threshold(0.02)
    found = trace(model, WINDOWS)
    with torch.no_grad():
        for window in WINDOWS:
            model(window)
    share = model.early.share()
    assert float(found.arrived.double().mean()) == pytest.approx(share) and share < 1
    assert (found.arrived[1:] <= found.arrived[:-1]).all() and model.early.depths is None
