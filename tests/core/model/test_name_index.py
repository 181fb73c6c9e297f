"""Names of Models: who has a name, who is addressed by it, and what a change of one Model does to others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.model.model import AdapterSpec, Model, ModelSpec
from corral_core.model.name_index import EVERYWHERE, LostName, NameIndex, Scope, lost_names

SOURCE = "file:///weights/tiny.gguf"


def model(key: str, *names: str, created: float = 1.0, adapters: tuple[str, ...] = ()) -> Model:
    namespace, _, name = key.partition("/")
    specs = tuple(AdapterSpec(name=adapter, source=SOURCE) for adapter in adapters)
    spec = ModelSpec(source=SOURCE, names=names, adapters=specs)
    return Model(name=name, namespace=namespace, created=created, generation=1, uid=key, spec=spec)


def index(*models: Model, shared: tuple[str, ...] = ()) -> NameIndex:
    built = NameIndex(shared)
    for one in models:
        built.put(one)
    return built


def key(names: NameIndex, name: str, *scope: str) -> str | None:
    found = names.find(name, scope or EVERYWHERE)
    return found.key if found else None


def test_the_older_model_keeps_a_name_and_the_younger_one_its_others() -> None:
    names = index(model("a/young", "x", "y", created=2), model("b/old", "X:latest", created=1))
    assert (key(names, "x"), key(names, "y")) == ("b/old", "a/young")
    assert names.lost("a/young") == (LostName("x:latest", "Model b/old"),)
    assert names.displayed_names("a/young") == ("a/x:latest", "y:latest")
    assert names.displayed_names("b/old") == ("x:latest",)


def test_the_key_decides_between_models_of_the_same_age() -> None:
    assert key(index(model("a/b", "x"), model("a/a", "x")), "x") == "a/a"


@pytest.mark.parametrize("name", ["team-a/llama", "Team-A/Llama:latest", "team-a/small:1b", "team-a/tuned"])
def test_namespace_and_name_address_the_namespaces_model(name: str) -> None:
    names = index(
        model("team-a/llama", "small:1b", created=9, adapters=("tuned",)),
        model("evil/one", "team-a/llama", "team-a/small:1b", "team-a/tuned", "small:1b", "tuned", "llama", created=1),
    )
    assert key(names, name) == "team-a/llama"
    assert key(names, name.partition("/")[2]) == "evil/one"
    lost = {each.name: each.owner for each in names.lost("evil/one")}
    assert lost["team-a/llama:latest"] == "namespace team-a"


def test_a_claim_to_another_namespaces_name_leads_nowhere() -> None:
    names = index(model("team-a/llama"), model("evil/one", "team-a/mistral", created=0))
    assert key(names, "team-a/mistral") is None
    assert names.displayed_names("evil/one") == ("evil/one:latest",)


def test_a_name_of_two_parts_is_plain_where_no_namespace_has_it() -> None:
    names = index(model("default/m", "mannix/llama", "hf.co/org/repo"))
    assert key(names, "mannix/llama") == key(names, "hf.co/org/repo") == key(names, "default/m") == "default/m"
    assert names.displayed_names("default/m") == ("mannix/llama:latest", "hf.co/org/repo:latest")


def test_the_metadata_name_of_a_model_cannot_be_taken_inside_its_namespace() -> None:
    names = index(model("a/llama", "x", created=9), model("a/other", "llama", adapters=("x",), created=1))
    assert key(names, "a/llama") == "a/llama"
    assert key(names, "llama") == "a/other"
    assert key(names, "a/x") == "a/other"


def test_the_name_that_was_meant_is_the_models_own() -> None:
    names = index(model("a/base", "a/big", adapters=("a/tuned", "other")))
    found = {name: names.find(name) for name in ("a/base", "a/big", "a/tuned", "a/other", "other")}
    assert {name: claim.name if claim else None for name, claim in found.items()} == {
        "a/base": "base:latest",
        "a/big": "a/big:latest",
        "a/tuned": "a/tuned:latest",
        "a/other": "other:latest",
        "other": "other:latest",
    }


def test_plain_names_belong_to_the_shared_namespaces() -> None:
    names = index(model("team-a/m", "x", created=1), model("common/m", "x", created=9), shared=("common",))
    assert key(names, "x") == "common/m"
    assert key(names, "team-a/x") == key(names, "team-a/m") == "team-a/m"
    assert names.lost("team-a/m") == names.lost("common/m") == ()
    assert names.displayed_names("team-a/m") == ("team-a/x:latest",)


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        (("team-a",), {"x": "team-a/m", "y": "common/m", "team-b/x": None, "common/y": "common/m", "z": None}),
        (("team-b",), {"x": "team-b/m", "y": "common/m", "team-a/x": None, "team-b/x": "team-b/m", "z": "team-b/m"}),
        (("team-b", "*"), {"x": "team-b/m", "y": "common/m", "team-a/x": "team-a/m", "z": "team-b/m"}),
        (("*",), {"x": "common/m", "team-a/x": "team-a/m", "team-b/x": "team-b/m", "z": None}),
        (("none",), {"x": "common/m", "team-a/x": None, "z": None}),
    ],
)
def test_a_scope_says_what_is_seen_and_what_plain_names_mean(scope: Scope, found: dict[str, str | None]) -> None:
    names = index(model("team-a/m", "x"), model("team-b/m", "x", "z"), model("common/m", "x", "y"), shared=("common",))
    assert {name: key(names, name, *scope) for name in found} == found


def test_without_shared_namespaces_a_scope_sees_only_its_own() -> None:
    names = index(model("team-a/m", "x", created=1), model("team-b/m", "y", created=2))
    assert key(names, "x", "team-b") is None
    assert key(names, "y", "team-b") == "team-b/m"
    assert names.displayed_names("team-b/m", ("team-b",)) == ("y:latest",)


def test_lost_names_of_files_are_described() -> None:
    assert lost_names([model("a/a", "x"), model("a/b", "x", "y")]) == {"a/b": "the name x:latest belongs to Model a/a"}


@pytest.mark.parametrize("shared", [(), ("common",)])
def test_a_change_among_thousands_of_models_of_one_name_concerns_two(shared: tuple[str, ...]) -> None:
    names = NameIndex(shared)
    for number in range(2000):
        assert len(names.put(model(f"flood/m{number}", "x", "flood2/x", created=2000.0 - number))) <= 3
    assert len(names.put(model("flood/first", "x", created=0))) <= 2
    assert len(names.remove("flood/first")) <= 2
    if shared:
        assert len(names.put(model("flood2/m", "x", created=0))) == 1, "names of namespaces that share nothing stay"


MODELS = st.builds(
    lambda namespace, name, names, created: model(f"{namespace}/{name}", *names, created=created),
    st.sampled_from(["a", "b", "library"]),
    st.sampled_from(["m", "n"]),
    st.lists(st.sampled_from(["x", "y:1", "m", "a/x", "b/m", "c/z", "h.co/a/x"]), max_size=4, unique=True),
    st.sampled_from([1.0, 2.0]),
)
SCOPES = st.sampled_from([EVERYWHERE, ("a",), ("b", "*"), ("a", "b"), ("c",)])
ASKED = ["x", "y:1", "m", "n", "a/x", "a/m", "b/m", "b/n", "b/y:1", "c/z", "c/x", "h.co/a/x", "library/x"]


@settings(max_examples=300, deadline=None)
@given(st.lists(MODELS | st.sampled_from(["a/m", "a/n", "b/m", "library/n"]), max_size=12), SCOPES, st.booleans())
def test_changes_one_by_one_equal_a_new_index(steps: list[Model | str], scope: Scope, shares: bool) -> None:
    """Also: a Model that is not reported as changed has the names that it had; a scope reaches only what it sees."""
    shared = ("a",) if shares else ()
    names, models = NameIndex(shared), dict[str, Model]()
    for step in steps:
        before = {one: names.displayed_names(one) for one in models}
        if isinstance(step, str):
            models.pop(step, None)
            changed = names.remove(step)
        else:
            models[step.key] = step
            changed = names.put(step)
        fresh = index(*models.values(), shared=shared)
        assert {one: names.find(one, scope) for one in ASKED} == {one: fresh.find(one, scope) for one in ASKED}
        for one in models:
            assert names.lost(one) == fresh.lost(one)
            assert names.displayed_names(one) == fresh.displayed_names(one)
            assert one in changed or names.displayed_names(one) == before[one]
    for one in models:
        for shown in names.displayed_names(one, scope):
            found = names.find(shown, scope)
            reached = found is not None and found.key == one
            assert reached == names.sees(scope, one.partition("/")[0]) or one.startswith("library/")
    for name in ASKED:
        found = names.find(name, scope)
        assert found is None or names.sees(scope, found.namespace)
        first, slash, rest = name.partition("/")
        if found is not None and slash and any(one.startswith(f"{first}/") for one in models) and first != "library":
            assert "/" in rest or found.namespace == first
