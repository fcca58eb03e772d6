"""The Inception network, with random weights in the place of the file that cannot be shipped."""

import dataclasses
import hashlib

import pytest
import torch
from pytorch_fid import inception as pytorch_fid

from lit_purify.classifiers import inception
from lit_purify.classifiers.inception import InceptionFeatures
from lit_purify.types import InputError
from lit_purify.weights import MIRROR, WEIGHTS


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, in the format and of the names of the real one."""
    path = tmp_path_factory.mktemp("weights") / inception.FILE
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = pytorch_fid._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def known(weights, monkeypatch):
    """The file in the registry of published weights, and at its publisher's address."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = dataclasses.replace(
        WEIGHTS[inception.NAME],
        url=weights.as_uri(),
        size=weights.stat().st_size,
        hash=f"sha256:{digest}",
    )
    monkeypatch.setitem(WEIGHTS, inception.NAME, entry)
    monkeypatch.delenv(MIRROR, raising=False)
    return weights


def test_features_are_pytorch_fids_block_pooled(known):
    state = torch.random.get_rng_state()
    features = InceptionFeatures(known)
    assert torch.equal(torch.random.get_rng_state(), state)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = features(x.double())
    assert found.shape == (2, features.dimension) == (2, 768)
    (block,) = features.network(x)
    assert block.shape == (2, 768, 17, 17)
    torch.testing.assert_close(found, block.mean((2, 3)))
    assert not torch.allclose(found[0], found[1])
    grey = x[:, :1]
    assert torch.equal(features(grey), features(grey.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(features(x[1:])[0], found[1], rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not features.training
    loaded = torch.load(known, weights_only=True)["Mixed_6e.branch1x1.conv.weight"]
    assert torch.equal(features.network.blocks[2][7].branch1x1.conv.weight, loaded)


def test_other_weights_are_no_fid(weights):
    with pytest.raises(InputError, match=r"damaged or another file .*expected 6726825d0af5"):
        InceptionFeatures(weights)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no file .*pt_inception-2015-12-05-6726825d\.pth") as e:
        InceptionFeatures(tmp_path / "none.pth")
    assert pytorch_fid.FID_WEIGHTS_URL in str(e.value)
    assert "features: classifier" in str(e.value)
    assert "\n" not in str(e.value)


def test_without_network_too(known, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    known.rename(moved := known.with_name("moved"))
    try:
        with pytest.raises(InputError, match=r"could not be fetched: there is no file") as caught:
            InceptionFeatures()
    finally:
        moved.rename(known)
    assert str(tmp_path / "checkpoints" / inception.FILE) in str(caught.value)
    assert "features: classifier" in str(caught.value)


def test_the_downloaded_one_is_taken(known, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    InceptionFeatures()
    assert (tmp_path / "checkpoints" / inception.FILE).read_bytes() == known.read_bytes()
