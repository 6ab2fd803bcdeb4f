import pytest

from vitax import config_files
from vitax.core.errors import UserError


def make(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant='a'):\n"
        "    return ConfigDict(dict(name=variant, n=1, x=0.5, none=None, text='1',\n"
        "        duration=dict(epochs=3), ops=(dict(kind='resize', size=8), dict(kind='flip')), pair=(1, 2)))\n"
    )
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--config.n=3"], "n", 3),
        (["--config.n", "3"], "n", 3),
        (["--config.x=3"], "x", 3),
        (["--config.x=3e-4"], "x", 3e-4),
        (["--config.n=0.5"], "n", 0.5),  # int to float: the constructor decides what is right
        (["--config.none=7"], "none", 7),  # None to a number
        (["--config.text=2"], "text", "2"),  # text stays text
        (["--config.n=None"], "n", None),
        (["--config.fresh.key=true"], "fresh.key", True),  # a key that the file leaves out
        (["--config.duration.steps=60"], "duration", {"steps": 60}),  # one unit replaces another
        (["--config.ops.0.size=16"], "ops.0.size", 16),
        (["--config.pair=(3,4)"], "pair", (3, 4)),
        (["--config.name=some/path"], "name", "some/path"),
    ],
)
def test_overrides(tmp_path, arguments, key, value):
    node = config_files.load(make(tmp_path), arguments).to_dict()
    for part in key.split("."):
        node = node[int(part) if part.isdigit() else part]
    assert node == value


def test_the_variant_is_what_follows_the_colon(tmp_path):
    assert config_files.load(make(tmp_path) + ":b/16,x=1").name == "b/16,x=1"
    assert config_files.split("D:/x/mine.py:b") == ("D:/x/mine.py", "b")
    assert config_files.split("quickstart:scratch") == ("quickstart", "scratch")
    assert config_files.split("mine:tokenizer=bpe.json") == ("mine", "tokenizer=bpe.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration.epochs=3"], "Unknown argument --duration.epochs=3. Did you mean --config.duration.epochs"),
        (["--wokdir=3"], 'Did you mean "--workdir"'),
        (["--config.n"], "no value"),
        (["--config.n.m=3"], 'n is 1, which has no field "m"'),
        (["--config.ops.7.size=3"], "element number from 0 to 1"),
    ],
)
def test_bad_overrides_say_what_is_wrong(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        config_files.load(make(tmp_path), arguments, ("--config", "--workdir"))


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match='no such recipe. Did you mean "quickstart"'):
        config_files.load("quikstart")


def test_bare_names_and_paths_are_the_same_recipe():
    assert config_files.load("quickstart:scratch") == config_files.load("configs/quickstart.py:scratch")


def test_variants():
    parse = config_files.parse_variant
    assert parse("L/16,epochs=7", "model", model="B/32", epochs=None) == {"model": "L/16", "epochs": 7}
    assert parse("", "model", model="B/32") == {"model": "B/32"}
    with pytest.raises(UserError, match='unknown key "epoch".*"epochs"'):
        parse("L/16,epoch=7", "model", model="B/32", epochs=7)
    with pytest.raises(UserError, match="expected key=value"):
        parse("L/16,B/32", "model", model="B/32")
    assert parse("on=true", "model", model="", on=False) == {"model": "", "on": True}
    with pytest.raises(UserError, match='on: expected true or false, got "1"'):
        parse("on=1", "model", model="", on=False)
