"""What is a webhook key, and what an AI key: what is wrong is said without being shown."""

from __future__ import annotations

import base64

import pytest

from services.scanner.model.key import KeyInvalid, KeyPurpose, content, generated


def test_a_generated_key_is_one_and_never_the_same() -> None:
    made = {generated(KeyPurpose.WEBHOOK) for _ in range(20)}
    assert len({content(KeyPurpose.WEBHOOK, each) for each in made}) == 20
    assert all(len(content(KeyPurpose.WEBHOOK, each)) == 32 for each in made)
    with pytest.raises(KeyInvalid, match="provider"):
        generated(KeyPurpose.AI)


def test_a_given_key_is_kept_as_it_was_written() -> None:
    assert content(KeyPurpose.AI, "sk-test-0123456789") == b"sk-test-0123456789"
    for size in (24, 64):
        assert content(KeyPurpose.WEBHOOK, "whsec_" + base64.b64encode(b"k" * size).decode()) == b"k" * size


@pytest.mark.parametrize(
    ("purpose", "secret", "rule"),
    [
        (KeyPurpose.AI, "sk-test-0123456789\n", "copied with more"),
        (KeyPurpose.AI, " sk-test-0123456789", "copied with more"),
        (KeyPurpose.AI, "sk-test 0123456789", "without spaces"),
        (KeyPurpose.AI, "short", "8 to 512"),
        (KeyPurpose.AI, "schlüssel-0123456789", "visible ASCII"),
        (KeyPurpose.WEBHOOK, "c2VjcmV0" * 4, "whsec_"),
        (KeyPurpose.WEBHOOK, "whsec_not-base64!" + "A" * 40, "base64"),
        (KeyPurpose.WEBHOOK, "whsec_" + base64.b64encode(b"k" * 23).decode(), "24 to 64"),
        (KeyPurpose.WEBHOOK, "whsec_" + base64.b64encode(b"k" * 65).decode(), "24 to 64"),
    ],
)
def test_what_is_no_key_says_the_rule_and_not_the_key(purpose: KeyPurpose, secret: str, rule: str) -> None:
    with pytest.raises(KeyInvalid) as refused:
        content(purpose, secret)
    assert rule in str(refused.value)
    assert secret.strip() not in repr(refused.value)
