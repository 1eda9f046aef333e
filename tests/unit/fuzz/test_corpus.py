"""The fuzzer's properties on its corpus: that they hold, and that the corpus reaches each outcome."""

from pathlib import Path

import pytest

from tests.fuzz import properties
from webhook.policy import Policy
from webhook.review import InvalidReview, asked, parsed, respond

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
QUANTITIES = sorted((CORPUS / "quantity").iterdir())
REVIEWS = sorted((CORPUS / "review").iterdir())


@pytest.mark.parametrize("file", QUANTITIES, ids=lambda file: file.name)
def test_a_quantity_of_the_corpus_keeps_the_properties(file: Path) -> None:
    properties.check_quantity(file.read_bytes().decode(errors="surrogateescape"))


@pytest.mark.parametrize("file", REVIEWS, ids=lambda file: file.name)
def test_a_review_of_the_corpus_keeps_the_properties(file: Path) -> None:
    properties.check_review(properties.body_of(file.read_bytes()))


def test_the_corpus_of_reviews_reaches_every_outcome() -> None:
    outcomes = set()
    for file in REVIEWS:
        try:
            question = asked(parsed(properties.body_of(file.read_bytes())))
            reviewed = respond(question, Policy.from_label(question.namespace, "a.b"))
            outcomes.add(reviewed.outcome.value)
        except InvalidReview:
            outcomes.add("invalid")
    assert outcomes == {"allowed", "mutated", "refused", "invalid"}


def test_the_properties_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    body = (CORPUS / "review" / "create.json").read_bytes()
    properties.check_review(body)
    monkeypatch.setattr(properties, "applied", lambda _, document: document)
    with pytest.raises(AssertionError, match="twice is not as once"):
        properties.check_review(body)


def test_a_patch_that_leaves_no_review_of_a_pod_breaks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "applied", lambda _, document: {**document, "spec": "gone"})
    with pytest.raises(InvalidReview, match="spec should be an object"):
        properties.check_review((CORPUS / "review" / "create.json").read_bytes())
