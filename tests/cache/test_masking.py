"""No credential is recorded, and what is none stays readable."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from motools.cache.masking import (
    DEPTH_MAX,
    MAPPING_TEXT_SIZE_MAX,
    MASK,
    NODES_MAX,
    TEXT_SIZE_MAX,
    mask_command,
    mask_mapping,
    mask_text,
)

S = "hunter2xyz"
"""A secret that only its place tells."""


@pytest.mark.parametrize(
    "argv",
    [
        ["--api-key", S],
        ["--api_key", S],
        ["--apiKey", S],
        ["--APIKey", S],
        ["--api-key=" + S],
        ["-api-key", S],
        ["--openai-key", S],
        ["--hf_token=" + S],
        ["--token", "-" + S],
        ["--token", "--api-key", S],
        ["--auth-token", S],
        ["--aws-secret-access-key", S],
        ["--dbpassword", S],
        ["--password", S],
        ["--password=a b&" + S],
        ["--jwt", S],
        ["--password2", S],
        ["--api-key", "", "--token", S],
        ["OPENAI_API_KEY=" + S],
        ["PGPASSWORD=a b " + S],
        ["token=" + S],
        ["password = x " + S],
        ["api_key:= " + S],
        ["+trainer.secret=" + S],
        ["--opts", f"lr=1,api_key={S},x=2"],
        ["/password:" + S],
        ["password:", S],
        ["secret", S],
        ["-H", "Authorization: Bearer " + S],
        ["-H", "Authorization:", "Bearer", S],
        ["Authorization:Basic", S],
        ["--header", "Authorization: token " + S],
        ["-H", "X-Api-Key: " + S],
        ["-H", "Cookie: session=1; x=" + S],
        ["bearer", S],
        ["curl", "-u", "me:" + S],
        ["curl", "-ume:" + S],
        ["curl", "--user=me:" + S],
        ["mysql", "-p" + S],
        ["/usr/bin/sshpass", "-p", S, "ssh", "host"],
        ["docker", "login", "-u", "ann", "-p", S],
        ["wandb", "login", S * 4],
        ["--token", S, "--token", S],
    ],
    ids=" ".join,
)
def test_value_under_a_credential_s_name_is_masked(argv: list[str]) -> None:
    """However the name is written, and wherever the value stands."""
    masked = mask_command(argv)
    assert len(masked) == len(argv)
    assert not [argument for argument in masked if S in argument]
    assert [argument for argument in masked if MASK in argument]


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://ann:{S}@host/db",
        f"postgres://ann:a/{S}@host/db",
        f"postgres://ann:a@{S}@host/db",
        f"redis://:{S}@host:6379/0",
        f"https://{S}@github.com/x/y",
        f"git+https://oauth2:{S}@gitlab.com/x",
        f"http://a/x,http://u:{S}@b",
        f"see http://u:{S}@b and c",
        f"https://host/?x=1&token={S}&y=2",
        f"https://host/blob?sv=1&sig={S}AB12",
        f"Server=x;Password={S};Encrypt=yes",
        f"AccountName=a;AccountKey={S};E=1",
        f'{{"a": [{{"apiKey": "{S}"}}]}}',
        f'{{"token": "{S}", "token": null}}',
        f'{{"\\u0074oken": "{S}"}}',
        f'{{"secrets": {{"a": ["{S}"]}}}}',
        f"{{'api_key': '{S}'}}",
        f"{{api_key: {S}, b: 1}}",
        f'["--api-key={S}"]',
        f"secrets={{a: x, b: {S}}}",
        f"import os; os.environ['HF_TOKEN'] = '{S}'",
        f"os.environ.setdefault('HF_TOKEN', '{S}')",
        f"f(api_key=b'{S}', x=1)",
        f"client_secret: 'it\\'s {S}'",
        f"run --api-key {S} --n 3",
        f'run --api-key "a {S}" --n 3',
        f'export MY_PASSWORD="a {S} b"',
        f"PASSWORD='a' TOKEN='b{S}'",
        f"mysql --password='{S} x'",
        f"curl -u me:{S} http://x",
        f"password: a {S}\nlr: 1",
        f"-H 'Authorization: Bearer {S}' x",
    ],
)
def test_credential_inside_a_text_is_masked(text: str) -> None:
    """In URLs, connection strings, JSON, programs and scripts: what a command line may carry."""
    for masked in (mask_text(text), *mask_command([text]), *mask_command(["--config=" + text])):
        assert S not in masked
        assert MASK in masked


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcDEF123456",
        "sk-ant-api03-abc_DEF-123",
        "sk_live_abcdef123456",
        "hf_abcdEFGH12345678",
        "ghp_abcdefghijkl123456",
        "github_pat_11ABCDEFG0_abcdef",
        "glpat-abcdefghij123456",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA1234567890abcdefghijk",
        "ya29.a0AfH6SMBx-1",
        "xoxb-12345-abcdef",
        "xapp-1-A1234-abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w",
        "npm_abcdefghij0123456789",
        "gsk_abcdefghij0123456789",
        "dapi0123456789abcdef0123456789abcdef",
        "https://hooks.slack.com/services/T00/B00/abcdef",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIEabc",
    ],
)
def test_well_known_credential_is_masked_wherever_it_stands(secret: str) -> None:
    """It says by its form what it is."""
    tail = re.sub(r".*(://|-----\n)", "", secret)
    for argv in ([secret], ["--x=" + secret], ["--x", secret], ["note: " + secret + "\nend"], ["a,'" + secret + "',b"]):
        assert tail not in " ".join(mask_command(argv))
    assert tail not in json.dumps(mask_mapping({"a": [secret], secret: 1})).replace("\\n", "\n")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --lr 1e-4 --config a.yaml --seed=0",
        "--tokenizer gpt2",
        "--tokenizer.padding=left",
        "--max-tokens 100",
        "--max_tokens=100",
        "--maxTokens=100",
        "--tokens-per-batch=4096",
        "--tokens 2000000",
        "--token-limit 9",
        "--eos-token </s>",
        "--pad-token-id 2",
        "--key-column name",
        "--sort-key loss",
        "--primary-key id",
        "--cache-key 0123456789abcdef01",
        "--key accuracy",
        "--keys a,b,c",
        "--num-key-value-heads 8",
        "--api-key-env OPENAI_API_KEY",
        "--token-file /run/x",
        "--secret-name prod",
        "--use-auth-token true --x",
        "--author ann",
        "--compass north",
        "--passes 3",
        "--trust-remote-code",
        "--user ann",
        "--time 12:30:00",
        "--model meta-llama/Llama-3.1-8B-Instruct",
        "--commit 0123456789abcdef0123456789abcdef01234567",
        "--label experiment=e1,owner=ann",
        "--where config.hyperparameters.epochs>3",
        "motools cache show --key abc",
        "docker run -p 8080:80 image:1.0",
        "sk-learn-model hf_model_name",
        "http://localhost:8000/v1 s3://bucket/key=1/x ssh://git@host/x git@github.com:a/b.git",
        "https://host/users/@me",
    ],
)
def test_ordinary_arguments_stay_readable(command: str) -> None:
    """A command line that is all stars says nothing."""
    argv = command.split()
    assert mask_command(argv) == argv


@pytest.mark.parametrize(
    "text",
    [
        '{"max_tokens": 100, "tokenizer": "x", "use_token": true, "api_key": null}',
        '{"b":1,  "a":2}',
        "import x; print(x.tokenize(text, max_tokens=5))",
        "the basic idea: train longer, and ask the secretary",
    ],
)
def test_ordinary_texts_stay_as_they_are(text: str) -> None:
    """To the last space."""
    assert mask_text(text) == text if "secretary" not in text else MASK not in mask_text(text)


def test_what_is_masked_leaves_the_rest() -> None:
    """The name stays, and all that stands round the value."""
    assert mask_command(["x.py", "--api-key", S, "--n", "3"]) == ["x.py", "--api-key", MASK, "--n", "3"]
    assert mask_command(["--api-key=" + S]) == ["--api-key=***"]
    assert mask_command(["-H", "Authorization:", "Bearer", S]) == ["-H", "Authorization:", "Bearer", MASK]
    assert mask_text(f"https://host/?x=1&token={S}&y=2") == "https://host/?x=1&token=***&y=2"
    assert mask_text(f"postgres://ann:{S}@host/db") == "postgres://***@host/db"
    assert mask_text(f"password: a {S}\nlr: 1") == "password: ***\nlr: 1"
    assert mask_text(f'{{"a": {{"token": "{S}"}}, "n": 1}}') == '{"a": {"token": "***"}, "n": 1}'


def test_long_argument_is_cut() -> None:
    """A script of a megabyte is looked at no further than it is kept."""
    (masked,) = mask_command(["x" * (TEXT_SIZE_MAX + 1) + " --token " + S])
    assert masked == "x" * TEXT_SIZE_MAX + "…"


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"cost": 1.5, "metrics": {"loss": 0.1}}, {"cost": 1.5, "metrics": {"loss": 0.1}}),
        ({"password": S}, {"password": MASK}),
        ({"a": [{"apiKey": S}]}, {"a": [{"apiKey": MASK}]}),
        ({"a": {"secrets": {"b": [S]}}}, {"a": {"secrets": MASK}}),
        ({"token": 12345, "pass": 1.5}, {"token": MASK, "pass": MASK}),
        ({"token": None, "auth": True, "secret": "", "password": []}, None),
        ({"max_tokens": 100, "tokens": 5, "key": "name", "keys": ["a"]}, None),
        ({"key": "a1b2c3d4e5f6g7h8"}, {"key": MASK}),
        ({"url": f"http://u:{S}@h"}, {"url": "http://***@h"}),
        ({"note": f"with --token {S}"}, {"note": "with --token ***"}),
        ({"AWS": ("AKIAIOSFODNN7EXAMPLE", 1)}, {"AWS": [MASK, 1]}),
        ([S, None, True, 1], None),
        ("sk-proj-abcDEF123456", MASK),
        (7, None),
    ],
)
def test_metadata_is_masked_at_any_depth(value: Any, masked: Any) -> None:  # noqa: ANN401 - any JSON
    """What stands under a credential's name, and what looks like one; None: it stays as it is."""
    before = repr(value)
    assert mask_mapping(value) == (value if masked is None else masked)
    assert repr(value) == before


def test_copy_is_the_caller_s_own() -> None:
    """What is changed in it later does not reach what was given."""
    value: dict[str, Any] = {"a": [1]}
    copy = mask_mapping(value)
    copy["a"].append(2)
    assert value == {"a": [1]}


def test_what_is_too_deep_is_masked() -> None:
    """A mapping that holds itself too: it ends."""
    deep: Any = S
    for _ in range(DEPTH_MAX + 1):
        deep = [deep]
    assert S not in json.dumps(mask_mapping(deep))
    assert S in json.dumps(mask_mapping(deep[0]))
    endless: list[Any] = []
    endless.append(endless)
    assert MASK in json.dumps(mask_mapping(endless))


def test_what_is_too_much_is_masked() -> None:
    """The first values are looked at; the rest is not trusted."""
    masked = mask_mapping([1] * (NODES_MAX + 10))
    assert masked[: NODES_MAX - 1] == [1] * (NODES_MAX - 1)
    assert set(masked[NODES_MAX:]) == {MASK}
    text = "a " * (MAPPING_TEXT_SIZE_MAX // 2)
    assert mask_mapping([text, text + "a"]) == [text, MASK]


HOSTILE = (
    *(
        "a",
        "a=",
        "-",
        '"',
        " ",
        "token=",
        "token=true ",
        "token\n",
        "'token',",
        "sk-",
        "://",
        "a://b:",
        "https://",
        "a:",
    ),
    *("eyJaaaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "{", "[1,", "token='", "\\'key='", "keys=[ ", "key: ", "-u a:"),
    *("--key x ", "bearer ", "basic ", "npm_", "password ", "hf_a", "x:y@", "a://b:@"),
)


def processor_s(text: str) -> float:
    """What it costs to mask a text, at the least."""
    costs = []
    for _ in range(3):
        before = time.process_time()
        mask_text(text)
        costs.append(time.process_time() - before)
    return min(costs)


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    """Eight times the size costs some eight times as much, where the square would be 64 times."""
    short, long = (unit * (size // len(unit)) for size in (TEXT_SIZE_MAX, 8 * TEXT_SIZE_MAX))
    assert processor_s(long) < 32 * max(processor_s(short), 0.001)
