"""The SHA-256 of the fast path."""

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain.sha256 import _built_in, sha256


@given(st.binary(max_size=300))
def test_it_is_the_sha_256_of_the_standard_library(data: bytes) -> None:
    assert sha256(data).digest() == hashlib.sha256(data).digest()


@given(st.binary(max_size=300))
def test_where_python_has_none_of_its_own_it_is_that_of_openssl(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        for module in ("_sha2", "_sha256"):
            patched.setitem(sys.modules, module, None)
        fallen_back = _built_in()

    assert fallen_back is hashlib.sha256
    assert fallen_back(data).digest() == sha256(data).digest()
