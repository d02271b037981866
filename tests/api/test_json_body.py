"""Request bodies. The texts for the recorded ones are in tests/contract; here are the rest and the rules."""

import json
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from barkd_py.api.json_body import BodyRejected, Unsigned, read_any, read_model
from barkd_py.api.schemas.wallet import BitcoindChainSource, CreateWalletRequest, SendRequest, UserPassAuth

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=4)
    ),
    max_leaves=20,
)


class Numbers(BaseModel):
    wide: Annotated[int, Unsigned(64)]
    narrow: Annotated[int, Unsigned(32)] = 7


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_any_json_is_read_as_json(value: Any, ascii_only: bool, indent: Any) -> None:
    if value == 0 and isinstance(value, int | float):
        value = 0  # -0 is a float to us and an integer to Python
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert read_any(body) == json.loads(body)


@given(JSON_VALUES, st.data())
def test_a_cut_body_is_refused_or_ended_earlier(value: Any, data: st.DataObject) -> None:
    body = json.dumps(value).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    try:
        json.loads(cut)
    except ValueError:
        with pytest.raises(BodyRejected) as refused:
            read_any(cut)
        assert refused.value.status == 400


@given(st.binary(max_size=40))
def test_bytes_that_are_no_json_are_refused_with_a_place(body: bytes) -> None:
    try:
        json.loads(body.decode())
        return
    except ValueError:
        pass
    with pytest.raises(BodyRejected) as refused:
        read_any(body)
    assert " at line " in refused.value.text


@given(JSON_VALUES)
def test_unknown_fields_are_passed_over_whatever_they_hold(value: Any) -> None:
    body = json.dumps({"x": value, "destination": "d"}).encode()
    assert read_model(SendRequest, body) == SendRequest(destination="d")


@pytest.mark.parametrize(
    "value",
    ["1e999", "-1e999", '"\\ud800"', '["\\udc00x", {"\\ud83d": 1e400}]', '"\xff"', "9" * 5_000],
)
def test_unknown_fields_only_have_to_be_well_formed(value: str) -> None:
    body = b'{"x":' + value.encode("latin-1") + b',"destination":"d"}'
    assert read_model(SendRequest, body) == SendRequest(destination="d")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("nan", "x: expected ident at line 1 column 7"),
        ("tru", "x: expected ident at line 1 column 9"),
        ('"\\ud8"', "x: invalid escape at line 1 column 12"),
        ('"\\x"', "x: invalid escape at line 1 column 8"),
        ('{"a":1,}', "x: key must be a string at line 1 column 13"),
        ("01", "x: invalid number at line 1 column 7"),
    ],
)
def test_unknown_fields_that_are_no_json_are_named(value: str, problem: str) -> None:
    with pytest.raises(BodyRejected) as refused:
        read_model(SendRequest, f'{{"x":{value},"destination":"d"}}'.encode())
    assert refused.value.text == f"Failed to parse the request body as JSON: {problem}"


def test_what_is_wrong_deep_inside_any_json_is_named() -> None:
    with pytest.raises(BodyRejected) as refused:
        read_any(b'{"a":[0,{"b":1e400}]}')
    assert refused.value.text.startswith(
        "Failed to parse the request body as JSON: a[1].b: number out of range"
    )
    with pytest.raises(BodyRejected) as refused:
        read_model(SendRequest, b'{"x":' + b"[" * 2_000)
    assert refused.value.text == (
        "Failed to parse the request body as JSON: x: EOF while parsing a list at line 1 column 2005"
    )


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_integers_are_exact_up_to_their_width(wide: int, narrow: int) -> None:
    found = read_model(Numbers, json.dumps({"wide": wide, "narrow": narrow}).encode())
    assert (found.wide, found.narrow) == (wide, narrow)


@given(st.integers(2**32, 2**64 - 1))
def test_an_integer_beyond_its_width_is_refused(narrow: int) -> None:
    with pytest.raises(BodyRejected, match=f"narrow: invalid value: integer `{narrow}`, expected u32"):
        read_model(Numbers, json.dumps({"wide": 1, "narrow": narrow}).encode())


def test_missing_fields_get_their_defaults() -> None:
    assert read_model(Numbers, b'{"wide":1}').narrow == 7


def test_null_is_no_default() -> None:
    with pytest.raises(BodyRejected, match="narrow: invalid type: null, expected u32"):
        read_model(Numbers, b'{"wide":1,"narrow":null}')


def test_a_positional_body_is_read_in_the_order_of_the_fields() -> None:
    assert read_model(Numbers, b"[1, 2]") == Numbers(wide=1, narrow=2)


def test_a_positional_body_may_end_before_some_fields() -> None:
    request = read_model(SendRequest, b'["x",1,null]')
    assert (request.amount_sat, request.comment, request.retry_for_secs) == (1, None, None)
    with pytest.raises(BodyRejected, match="invalid length 2, expected struct SendRequest with 4 elements"):
        read_model(SendRequest, b'["x",1]')


def test_a_word_may_be_the_only_key_of_an_object() -> None:
    assert read_model(CreateWalletRequest, b'{"network":{"regtest":null}}').network.value == "regtest"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"wide":01}', "wide: invalid number at line 1 column 10"),
        (b'{"wide":-}', "wide: invalid number at line 1 column 10"),
        (b'{"wide":1.}', "wide: invalid number at line 1 column 11"),
        (b'{"wide":1e999}', "wide: number out of range at line 1 column 13"),
        (b'{"wide":1,}', "trailing comma at line 1 column 11"),
        (b'{"wide" 1}', "expected `:` at line 1 column 9"),
        (b'{"wide":1', "EOF while parsing an object at line 1 column 9"),
        (b'{"a":"\\x"}', "a: invalid escape at line 1 column 8"),
        (
            b'{"a":"\x01"}',
            "a: control character (\\u0000-\\u001F) found while parsing a string at line 1 column 7",
        ),
        (b'{"wide":"\\udc00"}', "wide: lone leading surrogate in hex escape at line 1 column 15"),
        (b"[1,2,3]", "trailing characters at line 1 column 6"),
        (b'{"a":[1,]}', "a: expected value at line 1 column 9"),
        (b'{"a":[1 2]}', "a: expected `,` or `]` at line 1 column 9"),
        (b'{\n"a":tru}', "a: expected ident at line 2 column 8"),
    ],
)
def test_text_that_is_no_json_is_a_400(body: bytes, text: str) -> None:
    with pytest.raises(BodyRejected) as refused:
        read_model(Numbers, body)
    assert (refused.value.status, refused.value.text) == (
        400,
        f"Failed to parse the request body as JSON: {text}",
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"wide":1,"wide":1}', "duplicate field `wide` at line 1 column 16"),
        (b'{"wide":"a\\"b"}', 'wide: invalid type: string "a\\"b", expected u64 at line 1 column 14'),
        (b'{"wide":[1]}', "wide: invalid type: sequence, expected u64 at line 1 column 8"),
        (b'{"wide":1e-5}', "wide: invalid type: floating point `0.00001`, expected u64 at line 1 column 12"),
        (b'{"wide":1e-6}', "wide: invalid type: floating point `1e-6`, expected u64 at line 1 column 12"),
        (b'{"wide":1e16}', "wide: invalid type: floating point `1e+16`, expected u64 at line 1 column 12"),
        (b'{"wide":-0}', "wide: invalid type: floating point `-0.0`, expected u64 at line 1 column 10"),
        (b"[1]", "invalid length 1, expected struct Numbers with 2 elements at line 1 column 3"),
    ],
)
def test_json_of_the_wrong_shape_is_a_422(body: bytes, text: str) -> None:
    with pytest.raises(BodyRejected) as refused:
        read_model(Numbers, body)
    assert (refused.value.status, refused.value.text) == (
        422,
        f"Failed to deserialize the JSON body into the target type: {text}",
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            '"network":{"regtest":5}',
            "network.regtest: invalid type: integer `5`, expected unit at line 1 column 23",
        ),
        (
            '"chain_source":"esplora"',
            "chain_source.esplora: invalid type: unit variant, expected struct variant at line 1 column 26",
        ),
        (
            '"chain_source":"esplora","network":"regtest"',
            "chain_source.esplora: invalid type: unit variant, expected struct variant at line 1 column 25",
        ),
        (
            '"chain_source":{"esplora":[]}',
            "chain_source.esplora: invalid length 0, "
            "expected struct variant ChainSourceConfig::Esplora with 1 element at line 1 column 29",
        ),
        (
            '"chain_source":{"bitcoind":{"bitcoind":"x","bitcoind_auth":{"cookie":5}}}',
            "chain_source.bitcoind.bitcoind_auth.cookie: "
            "invalid type: integer `5`, expected struct variant BitcoindAuth::Cookie at line 1 column 71",
        ),
    ],
)
def test_choices_are_called_what_barkd_calls_them(fields: str, text: str) -> None:
    with pytest.raises(BodyRejected) as refused:
        read_model(CreateWalletRequest, f"{{{fields}}}".encode())
    assert refused.value.text == f"Failed to deserialize the JSON body into the target type: {text}"


def test_surrogate_pairs_make_one_character() -> None:
    assert read_any(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_nesting_has_a_limit_only_where_it_is_kept() -> None:
    deep = b"[" * 5000 + b"]" * 5000
    with pytest.raises(BodyRejected, match="recursion limit exceeded"):
        read_any(deep)
    assert read_model(Numbers, b'{"wide":1,"x":' + deep + b"}").wide == 1


def test_tagged_choices_are_read_into_their_models() -> None:
    request = read_model(
        CreateWalletRequest,
        b'{"network":"regtest","chain_source":{"bitcoind":{"bitcoind":"h","bitcoind_auth":'
        b'{"user-pass":{"user":"u","pass":"p"}}}}}',
    )
    assert isinstance(request.chain_source, BitcoindChainSource)
    auth = request.chain_source.bitcoind.bitcoind_auth
    assert isinstance(auth, UserPassAuth)
    assert (auth.user_pass.user, auth.user_pass.password) == ("u", "p")
