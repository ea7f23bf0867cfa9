"""`hf://`: a network is pushed with its model card and loaded again, by a folder and by a server on the loopback; refusals."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from helpers import frame, run_command, small_weights

import featherflow
from featherflow.errors import FileError, InputError, MissingExtraError, WeightsError
from featherflow.weights import WeightsInfo

huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """As much of the Hub as pushing and fetching small files takes: repositories are names of files and their bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        user, name, *rest = self.path.partition("?")[0].strip("/").split("/")
        files = self.server.repositories.get(f"{user}/{name}")
        if files is None:
            return self.answer(404, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
        if rest[:2] != ["resolve", "main"]:
            return self.answer(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
        data = files.get(rest[-1])
        if data is None:
            return self.answer(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        return self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'user'}/{request['name']}"
            self.server.repositories.setdefault(name, {})
            return self.answer(200, {"url": f"{self.server.url}/{name}", "name": name})
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self.answer(200, {"files": modes})
        if "/commit/main" in self.path:
            repository = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    self.server.repositories[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(
                200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}"}
            )
        return self.answer(200, {"errors": [], "warnings": []})  # validation of the card

    def answer(self, status, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def network(tmp_path):
    return featherflow.load("liteflownetx", small_weights(tmp_path / "liteflownetx-test.safetensors"))


def same(one, other) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def test_pushed_and_loaded_again(hub, network):
    from featherflow.weights.hub import HubModel

    HubModel(network).push_to_hub("someone/mine", token="hf_test")
    assert set(hub.repositories["someone/mine"]) >= {"README.md", "config.json", "model.safetensors"}
    loaded = featherflow.load("hf://someone/mine")
    assert same(network, loaded) and loaded.weights_info == network.weights_info
    flow = featherflow.estimate(frame(seed=1), frame(seed=2), model="hf://someone/mine")
    np.testing.assert_allclose(flow, featherflow.estimate(frame(seed=1), frame(seed=2), model=network), atol=1e-3)
    assert run_command("weights", "show", "hf://someone/mine") == 0


def test_what_was_fetched_is_there_without_the_hub(hub, network, monkeypatch):
    from featherflow.weights.hub import HubModel

    HubModel(network).push_to_hub("someone/mine", token="hf_test")
    featherflow.load("hf://someone/mine")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert same(network, featherflow.load("hf://someone/mine"))
    with pytest.raises(FileError, match=r"cannot be reached, and hf://someone/other was not fetched"):
        featherflow.load("hf://someone/other")


def test_saved_to_a_folder_and_read_again(tmp_path, network):
    from featherflow.weights.hub import HubModel

    HubModel(network).save_pretrained(tmp_path / "folder")
    assert same(network, HubModel.from_pretrained(tmp_path / "folder").network)


def test_weights_that_float16_cannot_hold_stay_exact(tmp_path, network):
    from featherflow.weights.hub import HubModel

    with torch.no_grad():
        next(network.parameters()).add_(1e-5)
    HubModel(network).save_pretrained(tmp_path / "folder")
    assert same(network, HubModel.from_pretrained(tmp_path / "folder").network)


def test_the_model_card_says_what_the_metadata_say():
    from featherflow.weights.hub import model_card

    info = WeightsInfo(
        "liteflownetx", "mine", recipe="modern/liteflownetx", data="own | pairs", samples_seen=1200, licence_weights="Apache-2.0",
        scores={"epe_px_per_image": {"sintel-clean": 2.5}},
    )  # fmt: skip
    card = model_card(info)
    assert card.data.license == "apache-2.0" and card.data.library_name == "featherflow"
    for part in ("liteflownetx:mine", "modern/liteflownetx", "own \\| pairs", "1,200", '"sintel-clean": 2.5'):
        assert part in card.text
    other = model_card(WeightsInfo("liteflownet", "official", licence_weights="research only"))
    assert (other.data.license, other.data.license_name) == ("other", "research only")
    assert model_card(WeightsInfo("liteflownet")).data.license_name == "not stated"


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("hf://mine", InputError, "hf://user/repo or hf://user/repo@revision"),
        ("hf://someone/mine@", InputError, "hf://user/repo or hf://user/repo@revision"),
        ("hf://some one/mine", InputError, "is no address on the Hub"),
        ("hf://someone/absent", WeightsError, "no repository"),
        ("hf://someone/empty", WeightsError, r"holds no model\.safetensors"),
        ("hf://someone/empty@v9", WeightsError, "no revision 'v9'"),
        ("hf://someone/damaged", FileError, "not a safetensors file"),
    ],
)
def test_refusals(hub, address, kind, message, capsys):
    hub.repositories |= {"someone/empty": {}, "someone/damaged": {"model.safetensors": b"\x08" + bytes(20)}}
    with pytest.raises(kind, match=message):
        featherflow.load(address)
    assert run_command("weights", "show", address) == kind.exit_code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_network_of_which_nothing_is_known_is_not_pushed():
    from featherflow import networks
    from featherflow.weights.hub import HubModel

    with pytest.raises(InputError, match="where they come from"):
        HubModel(networks.build("liteflownetx"))


def test_without_the_extra_the_line_that_cures_it(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "featherflow.weights.hub", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'featherflow\[hub\]'"):
        featherflow.load("hf://someone/mine")


def test_no_weights_are_kept_under_an_address(tmp_path):
    path = small_weights(tmp_path / "liteflownetx-test.safetensors")
    assert run_command("weights", "import", path, "--as", "hf://someone/mine") == InputError.exit_code
