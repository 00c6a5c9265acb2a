"""Each known cause in a log's end, whatever follows from it or stands before it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from giblet_hpc.causes import gpus, network, nodes, search, software
from giblet_hpc.causes.base import Cause
from giblet_hpc.cli.main import main
from giblet_hpc.config.cluster import Cluster, StageResources
from tests.causes.tails import CASCADES, CONFIRMATIONS, TAILS

ROOTS = {cause.name: cause for cause in search.CAUSES if cause.role == "root"}


def test_there_is_a_tail_for_each_root() -> None:
    assert set(TAILS) == set(ROOTS)
    assert len(ROOTS) >= 40


def test_tables_follow_each_other() -> None:
    """What is particular to a GPU or a link comes before what any file system may say."""
    assert (*gpus.CAUSES, *network.CAUSES, *nodes.CAUSES, *software.CAUSES) == search.CAUSES


def test_each_name_is_given_once() -> None:
    assert len({cause.name for cause in search.CAUSES}) == len(search.CAUSES)


@pytest.mark.parametrize("name", TAILS)
def test_the_root_is_named_between_its_consequences(name: str) -> None:
    before, after = "\n".join(CASCADES), "\n".join([*CASCADES, *CONFIRMATIONS.values()])
    for text in (TAILS[name], f"step 40\n{TAILS[name]}\n{after}\n", f"{before}\n{TAILS[name]}"):
        found = search.matches(text)
        assert found[0].cause.name == name, [match.cause.name for match in found]
        assert found[0].text in TAILS[name]


@pytest.mark.parametrize("name", TAILS)
def test_the_line_is_where_it_stands(name: str) -> None:
    found = search.matches(f"one\ntwo\n{TAILS[name]}\nlast")[0]
    assert 3 <= found.line <= 3 + TAILS[name].count("\n")


@pytest.mark.parametrize("text", CASCADES)
def test_what_follows_is_never_a_cause(text: str) -> None:
    cause = search.explain(text)
    assert cause is not None
    assert cause.role == "cascade"


@pytest.mark.parametrize("name", CONFIRMATIONS)
def test_what_confirms_comes_before_what_follows_and_after_a_root(name: str) -> None:
    text = "\n".join([*CASCADES, CONFIRMATIONS[name]])
    found = search.explain(text)
    assert found is not None
    assert (found.name, found.role) == (name, "confirmation")
    found = search.explain(f"{text}\n{TAILS['gpu-lost']}")
    assert found is not None
    assert found.name == "gpu-lost"


@pytest.mark.parametrize(
    "text",
    [
        "", "step 40: loss 0.31", "2026-01-01 epoch 3: r 0.19", "saved checkpoint step_000040",
        "preprocess: 6 of 6 parts complete", "nodes: n1, n2; backend gloo",
    ],
)  # fmt: skip
def test_ordinary_lines_tell_nothing(text: str) -> None:
    assert search.matches(text) == []


@pytest.mark.parametrize("cause", search.CAUSES, ids=lambda cause: cause.name)
def test_commands_and_fields_of_a_remedy_exist(cause: Cause) -> None:
    for words in re.findall(r"giblet-hpc ([a-z]+(?: [a-z]+)?)", cause.remedy):
        group: click.Command = main
        for word in words.split():
            if not isinstance(group, click.Group):
                break
            found = group.get_command(click.Context(group), word)
            assert found is not None, words
            group = found
    for field in re.findall(r"(\w+) in the cluster profile", cause.remedy):
        assert field in {*Cluster.model_fields, *StageResources.model_fields}
    for file in re.findall(r"docs/\S+\.md", cause.remedy):
        assert (Path(__file__).parents[2] / file).is_file()
