"""Draft tokens out of the prompt and the text of a generation."""

from __future__ import annotations

from corral_server.runner.engine.prompt_lookup import PromptLookup


def lookup(*tokens: int, max_tokens: int = 4) -> PromptLookup:
    made = PromptLookup(max_tokens)
    made.extend(tokens)
    return made


def test_the_draft_is_what_followed_the_last_occurrence() -> None:
    assert lookup(1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3).draft() == [4, 5, 6, 7]
    assert lookup(1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3, max_tokens=2).draft() == [9, 1]


def test_the_longer_match_wins() -> None:
    assert lookup(8, 1, 2, 3, 50, 9, 1, 2, 3, 60, 8, 1, 2, 3, max_tokens=1).draft() == [50]


def test_without_an_earlier_occurrence_there_is_no_draft() -> None:
    assert lookup().draft() == lookup(1, 2).draft() == lookup(1, 2, 3, 4, 2, 3).draft() == []


def test_rejected_drafts_pause_longer_and_longer() -> None:
    made, pauses = lookup(*[1] * 20), []
    for _ in range(3):
        made.record_result(4, 0)
        pause = 0
        while not made.draft():
            made.extend([1])
            pause += 1
        pauses.append(pause)
    assert pauses == [4, 8, 16]


def test_an_accepted_draft_resets_the_pause() -> None:
    made = lookup(*[1] * 20)
    for accepted in (0, 0, 4, 0):
        made.record_result(4, accepted)
    made.extend([1] * 4)
    assert made.draft()
