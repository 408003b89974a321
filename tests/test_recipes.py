"""Recipes: every shipped one loads, mistakes are named in one line, what was saved loads as it was."""

import inspect
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from braingpt.errors import UserError
from braingpt.recipes import Recipe, check_recipe, load_recipe, recipe_text, save_recipe, shipped
from braingpt.train.run.flat_settings import flat_settings


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_loads_and_comes_back_the_same(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.model.architecture == (name.split("-")[1] if "-" in name else "v2")
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_bases_are_not_listed():
    assert shipped() and not [name for name in shipped() if name.startswith("_")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.lrr=1"], r"unknown recipe key 'train.lrr'; did you mean 'train.lr'\?"),
        (["trian.lr=1"], r"unknown recipe key 'trian'; did you mean 'train'\?"),
        (
            ["model.columns.actve=1"],
            r"unknown recipe key 'model.columns.actve'; did you mean 'model.columns.active'\?",
        ),
        (["model.mlp=4"], "unknown recipe key 'model.mlp'; known: .*columns"),
        (["train.steps=0"], "train.steps: .*greater than or equal to 1"),
        (["train.average=1"], "train.average"),
        (["train.skip_sigma=0"], "train.skip_sigma"),
        (["train.loggers=[tensorbord]"], "train.loggers"),
        (
            ["train.lengths=[{until: 0.5, context: 64, contxt: 8}]"],
            r"unknown recipe key 'train.lengths.0.contxt'; did you mean 'train.lengths.0.context'\?",
        ),
        (
            ["train.lengths=[{until: 0.5, context: 48}]"],
            r"train.lengths: train.context \(128\) must be a multiple of 48",
        ),
        (["train.steps=many"], "train.steps: .*'many'"),
        (["train.lr=.nan"], "train.lr"),
        (["train.lr=.inf"], "train.lr: Input should be a finite number"),
        (["train.betas=[2, 0.9]"], "train.betas.0"),
        (["model.layers=1000000000"], "model.layers"),
        (["train.batch=1000000000000"], "train.batch"),
        (["train.seed=9223372036854775809"], "train.seed"),
        (["name=a b"], "name takes letters, digits"),
        (["train.loggers=tensorboard"], "train.loggers is a list, like .*, not 'tensorboard'"),
        (["train.micro_batch=5"], r"train.batch \(8\) must be a multiple of train.micro_batch \(5\)"),
        (["model.hidden=130"], r"model.hidden \(130\) must be an even multiple of model.heads"),
        (["model.columns.active=99"], r"model.columns.active \(99\) is more than model.columns.count \(16\)"),
        (["model.attention.layers=[7]"], "model.attention.layers"),
        (["model.architecture=v9"], "model.architecture is 'v9'; it is one of dense, v1, v2"),
        (["train.schedule=sine"], "train.schedule"),
        (["data.mixture=even"], "data.mixture"),
        (["data.mixture={ko: -1}"], "data.mixture: the weight of 'ko' must be a positive number"),
        (["data.mixture=[{until: 2, mixture: balanced}]"], "'until' is a share"),
        (["data.mixture={no: 1}"], "data.mixture: False is not a language code; .* quotes"),
        (["train.lr"], "--set takes KEY=VALUE"),
        (["=3"], "--set takes KEY=VALUE"),
        (["train.lr=[1"], "--set train.lr: cannot read the value"),
        (["train.lr=2026-13-45"], "--set train.lr: cannot read the value"),
        (["train.lr=" + "[" * 5000], "--set train.lr: cannot read the value"),
        (["name.first=x"], "'name' is a single value, not a group"),
        (["train=5"], "train is a group of settings, not 5"),
        (["extends=nano-v1"], "unknown recipe key 'extends'"),
    ],
)
def test_what_a_user_can_get_wrong_is_told_in_one_line(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        load_recipe("nano-v2", overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "remark"),
    [
        (["train.steps=40", "train.save_every=20"], r"train.warmup \(40\) is not below train.steps \(40\)"),
        (["train.final_lr=1"], "train.schedule=cosine has no effect"),
        (["train.lengths=[{until: 1e-4, context: 32}]"], "one of the phases has no step"),
        (["train.save_every=2000"], "train.rewinds has no effect"),
    ],
)
def test_settings_without_effect_are_remarked(overrides, remark):
    assert load_recipe("nano-v2").remarks() == []
    (found,) = load_recipe("nano-v2", overrides).remarks()
    assert re.search(remark, found)


def test_overrides_are_yaml_laid_over_in_order():
    recipe = load_recipe(
        "nano-v2",
        ["train.lr=1e-3", "train.lr=2e-3", "data.folders=[a, b/c]", "data.mixture={ko: 2, en: 1}", "name=x"],
    )
    assert (recipe.train.lr, recipe.data.folders, recipe.name) == (2e-3, ("a", "b/c"), "x")
    assert recipe.data.mixture == {"ko": 2.0, "en": 1.0}
    assert load_recipe("nano-v2").train.lr != 2e-3, "a recipe is read anew each time"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("temperature", {"temperature": 0.3}),
        ("{temperature: 0.5}", {"temperature": 0.5}),
        (
            "[{until: 0.7, mixture: balanced}, {mixture: {ko: 3, en: 1}}]",
            [{"until": 0.7, "mixture": "balanced"}, {"until": 1.0, "mixture": {"ko": 3.0, "en": 1.0}}],
        ),
    ],
)
def test_mixtures_come_back_as_they_were_saved(written, kept, tmp_path):
    recipe = load_recipe("nano-v2", [f"data.mixture={written}", "data.reset_at_documents=true"])
    assert recipe.data.mixture == kept and recipe.data.reset_at_documents
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_unknown_names_and_files():
    with pytest.raises(UserError, match=r"unknown recipe 'nano-v3'; did you mean 'nano-v"):
        load_recipe("nano-v3")
    with pytest.raises(UserError, match="no recipe file"):
        load_recipe("none.yaml")
    with pytest.raises(UserError):
        load_recipe("_none")


def test_a_file_extends_one_beside_it_or_a_shipped_one(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: nano-dense\ntrain: {lr: 1e-2, steps: 7}\n")
    (tmp_path / "mine.yaml").write_text("extends: base\ntrain: {steps: 8}\n")
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.train.lr, recipe.train.steps, recipe.model) == (
        "mine",
        1e-2,
        8,
        load_recipe("nano-dense").model,
    )


def test_the_name_is_the_files_own_even_when_the_parent_has_one(tmp_path):
    save_recipe(load_recipe("nano-dense"), tmp_path / "parent.yaml")
    (tmp_path / "child.yaml").write_text("extends: parent\ntrain: {steps: 8}\n")
    assert load_recipe(tmp_path / "child.yaml").name == "child"


def test_bad_files_are_told_in_one_line(tmp_path):
    for text in ("extends: round\n", "- a\n", "a: [1\n", "model: 5\n", "", "train: null\n"):
        (tmp_path / "round.yaml").write_text(text)
        with pytest.raises(UserError) as caught:
            load_recipe(tmp_path / "round.yaml")
        assert "\n" not in str(caught.value)
    for text in ("name: 2026-13-45\n", "a: " + "[" * 5000):
        (tmp_path / "round.yaml").write_text(text)
        with pytest.raises(UserError, match=r"cannot read recipe .*round\.yaml"):
            load_recipe(tmp_path / "round.yaml")
    (tmp_path / "round.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(tmp_path / "round.yaml")


@given(
    lr=st.floats(1e-12, 1e3),
    steps=st.integers(1, 10**9),
    seed=st.integers(0, 2**63 - 1),
    name=st.text("aZ09가나_-.", max_size=20).map("r".__add__),
    weights=st.dictionaries(
        st.sampled_from(["ko", "en", "no", "on", "1", "de"]), st.floats(1e-6, 1e6), min_size=1
    ),
)
@settings(max_examples=40, deadline=None)
def test_saved_recipes_load_as_they_were(tmp_path_factory, lr, steps, seed, name, weights):
    tree = load_recipe("nano-v2").model_dump(mode="json")
    tree["train"] |= {"lr": lr, "steps": steps, "seed": seed}
    recipe = check_recipe(tree | {"name": name, "data": {"folders": ["자료/하나"], "mixture": weights}})
    path = tmp_path_factory.mktemp("r") / "recipe.yaml"
    path.write_text(recipe_text(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_every_key_has_a_description():
    def undescribed(settings, prefix):
        for key, field in settings.model_fields.items():
            if not field.description:
                yield prefix + key
            for inner in groups(field.annotation):
                yield from undescribed(inner, f"{prefix}{key}.")

    def groups(annotation):
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            yield annotation
        for part in get_args(annotation):
            yield from groups(part)

    assert list(undescribed(Recipe, "")) == []


@pytest.mark.parametrize("name", ["nano-dense", "nano-v1", "nano-v2"])
def test_no_number_of_a_recipe_is_nan_or_infinite(name):
    recipe = load_recipe(name)
    numbers = [key for key, value in flat_settings(recipe).items() if type(value) in (int, float)]
    assert len(numbers) > 15
    for key in numbers:
        for value in (".nan", ".inf", "-.inf"):
            with pytest.raises(UserError, match=re.escape(key)):
                load_recipe(name, [f"{key}={value}"])
    for mixture in ("{ko: .nan}", "{ko: .inf}", "{temperature: .nan}", "[{until: .nan, mixture: balanced}]"):
        with pytest.raises(UserError, match=r"data\.mixture"):
            load_recipe(name, [f"data.mixture={mixture}"])
    for growth in ("[.nan]", "[.nan, 0.5]", "[0.1, .inf]"):
        with pytest.raises(UserError, match=r"train\.growth"):
            load_recipe(name, [f"train.growth={growth}"])
