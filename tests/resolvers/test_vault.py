"""The vault: what is sealed can be opened by any key of the list, and by nothing else."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from resolvers.errors import BadInput
from resolvers.vault import Sealed, Vault

OLD, NEW = "an old secret key", Fernet.generate_key().decode()


def test_what_is_sealed_is_opened_and_does_not_show():
    token = Vault([NEW]).seal("Bearer ä", (), "headers")
    assert b"Bearer" not in token
    assert Vault([NEW]).open(token) == "Bearer ä"
    assert Fernet(NEW).decrypt(token).decode() == "Bearer ä", "a Fernet key is taken as it is"


@pytest.mark.parametrize("key", ["8 or mor", "ü" * 20, "a" * 44, "not/url+safe" * 4])
def test_any_text_is_a_key(key: str):
    token = Vault([key]).seal("x", (), "headers")
    assert Vault([key]).open(token) == "x"
    with pytest.raises(Sealed):
        Vault([key + "."]).open(token)


def test_keys_are_rotated_by_a_list_of_which_the_first_seals():
    token = Vault([OLD]).seal("x", (), "headers")
    both = Vault([NEW, OLD])
    assert both.open(token) == "x"
    assert not both.is_current(token)
    again = both.seal_again(token)
    assert both.is_current(again)
    assert Vault([NEW]).open(again) == "x"
    with pytest.raises(Sealed):
        Vault([OLD]).open(again)


def test_without_a_key_nothing_is_kept_and_the_refusal_says_what_to_do():
    with pytest.raises(BadInput, match="CREW_SECRET_KEY, which is not set") as refused:
        Vault().seal("x", ("input", "headers"), "headers")
    assert refused.value.path == ("input", "headers")
    with pytest.raises(Sealed):
        Vault().open(Vault([OLD]).seal("x", (), "headers"))
