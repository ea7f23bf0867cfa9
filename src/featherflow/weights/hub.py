"""Weights on the Hugging Face Hub: `hf://user/repo` wherever a network is named, and a network pushed with its model card.

    network = featherflow.load("hf://user/repo")             # or hf://user/repo@revision
    HubModel(network).push_to_hub("user/repo")               # or .save_pretrained("folder/")

A repository holds one `model.safetensors`, whose metadata say which network it is for. It is read like any other weight file:
nothing in it is executed, and a tensor too few or of another shape is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..errors import FileError, InputError, MissingExtraError, WeightsError
from ..networks import FlowNetwork
from . import store
from .catalogue import ON_THE_HUB
from .info import WeightsInfo

try:
    import huggingface_hub
    from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, errors
except ImportError as error:
    raise MissingExtraError("hf:// needs huggingface_hub; install it with: pip install 'featherflow[hub]'") from error

PREFIX = ON_THE_HUB
FILE_NAME = "model.safetensors"


def download(address: str) -> Path:
    """The weight file behind an address, from the Hub's cache on this machine where it is the newest.

    Args:
        address: `hf://user/repo`, or `hf://user/repo@revision` for a branch, a tag or a commit.

    Raises:
        InputError: for an address of another form.
        WeightsError: for a repository, revision or file that is not there, or not for this user.
        FileError: if the Hub cannot be reached and nothing is kept from before.
    """
    repository, at, revision = address.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or (at and not revision):
        raise InputError(f"An address on the Hub reads hf://user/repo or hf://user/repo@revision, got '{address}'.")
    try:
        return Path(huggingface_hub.hf_hub_download(repository, FILE_NAME, revision=revision or None, library_name="featherflow"))
    except errors.HFValidationError as error:
        raise InputError(f"'{address}' is no address on the Hub: {_first_line(error)}") from error
    except errors.GatedRepoError as error:
        raise WeightsError(f"{address} asks for its terms to be accepted on the Hub, and for a login (`hf auth login`).") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(f"There is no repository {address}, or it is not open to you.") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(f"{PREFIX}{repository} has no revision '{revision}'.") from error
    except errors.LocalEntryNotFoundError as error:  # before EntryNotFoundError, which it is too
        raise FileError(f"The Hub cannot be reached, and {address} was not fetched before.") from error
    except errors.EntryNotFoundError as error:
        raise WeightsError(f"{address} holds no {FILE_NAME}.") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise FileError(f"{address} could not be fetched: {_first_line(error)}") from error


class HubModel(ModelHubMixin, library_name="featherflow", tags=["optical-flow"], pipeline_tag="image-to-image"):
    """A network as the Hub handles models: `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Args:
        network: with weights, as `featherflow.load` gives it: its `weights_info` becomes the model card.

    Raises:
        InputError: for a network of which nothing is known.
    """

    def __init__(self, network: FlowNetwork):
        info = network.weights_info
        if not isinstance(info, WeightsInfo):
            raise InputError("Only a network whose weights say where they come from can be put on the Hub; see featherflow.load.")
        self.network, self.info = network, info
        self._hub_mixin_config = json.loads(json.dumps(info.as_dict()))  # config.json, by which the Hub counts downloads

    def _save_pretrained(self, save_directory: Path) -> None:
        state = self.network.state_dict()
        exact = all(torch.equal(tensor.half().float(), tensor.float()) for tensor in state.values())
        store.save_weights(save_directory / FILE_NAME, state, self.info, torch.float16 if exact else torch.float32)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None, **_: object) -> HubModel:
        folder = Path(model_id)
        path = folder / FILE_NAME if folder.is_dir() else download(PREFIX + model_id + (f"@{revision}" if revision else ""))
        return cls(store.with_weights(*store.read_weights(path)))

    def generate_model_card(self, **_: object) -> ModelCard:
        """What the metadata say, as the Hub shows it; nothing is added to it."""
        return model_card(self.info)


def model_card(info: WeightsInfo) -> ModelCard:
    """A page for the Hub made of what is known about weights."""
    free = info.licence_weights == "Apache-2.0"
    data = ModelCardData(
        library_name="featherflow",
        pipeline_tag="image-to-image",
        tags=["optical-flow", info.architecture],
        license="apache-2.0" if free else "other",
        license_name=None if free else (info.licence_weights or "not stated"),
    )
    facts = {
        "network": info.architecture,
        "options of the network": _as_text(info.options),
        "recipe": info.recipe,
        "data": info.data,
        "pairs seen": f"{info.samples_seen:,}" if info.samples_seen else "",
        "licence of the code": info.licence_code,
        "licence of the weights": info.licence_weights or "not stated",
        "source": info.source,
        "trained or converted at": info.commit,
        "approximate": info.approximate,
    }
    lines = [f"# {info.name}", "", "Weights for dense optical flow with featherflow.", ""]
    lines += ["```python", "import featherflow", "", 'network = featherflow.load("hf://USER/REPOSITORY")', "```", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {key} | {_cell(value)} |" for key, value in facts.items() if value), ""]
    if info.scores:
        lines += ["## Scores", "", "Each name says data, metric and aggregator.", "", "```json"]
        lines += [json.dumps(info.scores, indent=2, sort_keys=True), "```", ""]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines))


def _as_text(options: dict[str, object]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.items())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
