"""Bringing a file from a real HTTP server on this machine: cut off, changed, damaged, absent, offline."""

import base64
import hashlib
import http.server
import json
import threading

import pytest

from vitax import fetch
from vitax.__main__ import main
from vitax.core.errors import RunError, UserError
from vitax.weights import addresses
from vitax.weights.addresses import locate

BODY = bytes(range(256)) * 4096  # 1 MiB
NAME = "imagenet21k/ViT-B_16"


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` with ranges; ``cut`` ends the next answers after so many bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.cut, self.headers, self.ranges, self.redirect = {}, [], {}, [], {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path in self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect[self.path][0])
            for name, value in self.server.redirect[self.path][1].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.headers["If-Range"] == tag else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        part = body[start:]
        if self.server.cut:
            self.wfile.write(part[: self.server.cut.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(part)


@pytest.fixture
def server(monkeypatch):
    made = Server()
    monkeypatch.setattr(addresses, "BUCKETS", made.address)
    monkeypatch.setattr(addresses, "HUB", made.address)
    made.files["/vit_models/imagenet21k/ViT-B_16.npz"] = BODY
    yield made
    made.shutdown()
    made.server_close()


def test_it_is_brought_once_and_checked_when_asked_for(server, tmp_path):
    seen = []
    path = fetch.fetch(NAME, tmp_path, lambda *args: seen.append(args))
    assert path.read_bytes() == BODY
    assert seen[-1] == ("ViT-B_16.npz", len(BODY), len(BODY))
    assert json.loads((path.parent / "ViT-B_16.npz.json").read_text())["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert fetch.fetch(NAME, tmp_path) == path
    assert len(server.ranges) == 1
    path.write_bytes(BODY[:-1] + b"x")  # damaged in the cache: brought again
    assert fetch.fetch(NAME, tmp_path).read_bytes() == BODY
    assert sorted(p.name for p in path.parent.iterdir()) == ["ViT-B_16.npz", "ViT-B_16.npz.json"]


def test_it_goes_on_where_the_connection_broke(server, tmp_path):
    server.cut = [300_000, 200_000]
    assert fetch.fetch(NAME, tmp_path).read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    # Also in a later call, after giving up.
    server.cut = [1000, 1000, 1000]
    server.ranges.clear()
    with pytest.raises(RunError, match=r"(?s)could not bring.*3,000 bytes are kept; the same command goes on"):
        fetch.fetch(NAME, tmp_path / "b")
    assert fetch.fetch(NAME, tmp_path / "b").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


def test_a_file_that_changed_meanwhile_is_brought_whole(server, tmp_path):
    server.cut = [1000] * 3
    with pytest.raises(RunError):
        fetch.fetch(NAME, tmp_path)
    server.files["/vit_models/imagenet21k/ViT-B_16.npz"] = BODY[::-1]
    assert fetch.fetch(NAME, tmp_path).read_bytes() == BODY[::-1]


def test_what_the_server_states_is_checked(server, tmp_path):
    right = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={right}"}
    fetch.fetch(NAME, tmp_path / "a")
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={right[::-1]}"}
    with pytest.raises(RunError, match="arrived damaged .another MD5"):
        fetch.fetch(NAME, tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.npz*"))


def test_the_hub_states_its_checksum_in_a_redirect(server, tmp_path):
    server.files |= {"/cdn": BODY, "/timm/m.tag/resolve/main/config.json": b"{}"}
    stated = {"X-Linked-Etag": f'"{hashlib.sha256(BODY).hexdigest()}"', "X-Linked-Size": str(len(BODY))}
    server.redirect["/timm/m.tag/resolve/main/model.safetensors"] = ("/cdn", stated)
    path = fetch.fetch("m.tag", tmp_path / "a")
    assert path.read_bytes() == BODY
    assert (path.parent / "config.json").is_file()
    stated["X-Linked-Etag"] = "0" * 64
    with pytest.raises(RunError, match="another SHA-256"):
        fetch.fetch("m.tag", tmp_path / "b")
    # A config that is not there is no loss.
    stated["X-Linked-Etag"] = hashlib.sha256(BODY).hexdigest()
    del server.files["/timm/m.tag/resolve/main/config.json"]
    fetch.fetch("m.tag", tmp_path / "c")


def test_a_model_of_text_brings_its_tokenizer(server, tmp_path):
    folder = "/openai-community/tiny/resolve/main"
    server.files |= {f"{folder}/{name}": BODY for name in ("model.safetensors", "vocab.json", "merges.txt")}
    path = fetch.fetch("openai-community/tiny", tmp_path)
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix != ".json" or p.name == "vocab.json") == [
        "merges.txt",
        "model.safetensors",
        "vocab.json",
    ]


def test_absent_and_offline(server, tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"there is no such file: http.*ViT-X_16.npz .HTTP 404"):
        fetch.fetch("imagenet21k/ViT-X_16", tmp_path)
    server.shutdown()
    server.server_close()
    assert main(["fetch", "imagenet21k/ViT-L_16", "--cache", str(tmp_path)]) == 1
    text = capsys.readouterr().err
    for words in ("could not bring ViT-L_16.npz", "/vit_models/imagenet21k/ViT-L_16.npz", "put it at", "--checkpoint"):
        assert words in text
    # Put there by hand, it is taken.
    by_hand = tmp_path / "imagenet21k--ViT-L_16" / "ViT-L_16.npz"
    by_hand.write_bytes(b"x")
    assert main(["fetch", "imagenet21k/ViT-L_16", "--cache", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(by_hand)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("imagenet21k+imagenet2012/R50+ViT-B_16", "vit_models/imagenet21k%2Bimagenet2012/R50%2BViT-B_16.npz"),
        ("augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0", "sd_0.0.npz"),
        ("gsam/ViT-B_16.npz", "vit_models/gsam/ViT-B_16.npz"),
        ("BiT-M-R152x4", "bit_models/BiT-M-R152x4.npz"),
        ("BiT-S-R50x1-ILSVRC2012", "bit_models/BiT-S-R50x1-ILSVRC2012.npz"),
        ("siglip/webli_en_b16_224_63724782", "big_vision/siglip/webli_en_b16_224_63724782.npz"),
        ("timm/vit_base_patch16_224.augreg_in21k", "timm/vit_base_patch16_224.augreg_in21k/resolve/main/model.saf"),
        ("vit_base_patch16_224.augreg_in21k", "timm/vit_base_patch16_224.augreg_in21k/resolve/main/model.saf"),
        ("google/vit-base-patch16-224", "huggingface.co/google/vit-base-patch16-224/resolve/main/model.safetensors"),
    ],
)
def test_names(name, path):
    assert path in locate(name)[0].url


def test_names_that_are_none():
    with pytest.raises(UserError, match=r"several files. Say which: imagenet21k/ViT-B_16, .*gsam/ViT-B_16"):
        locate("ViT-B_16")
    with pytest.raises(UserError, match=r'Did you mean "BiT-M-R50x1"'):
        locate("Bit-M-R50x1")
