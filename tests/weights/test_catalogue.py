"""The registry of published weights, and the files that it leads to."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from pytorch_fid import inception as pytorch_fid
from torchvision.models import ResNet50_Weights
from weights_files import saved

from lit_purify.types import InputError
from lit_purify.weights import (
    CACHE,
    MIRROR,
    WEIGHTS,
    Weights,
    cache_folder,
    fetch,
    verified_copy,
    weights_file,
)

CONTENT = saved({"weight": torch.arange(256.0)})
OTHER = saved({"weight": -torch.arange(256.0)})
JUNK = {
    "message": json.dumps({"error": "quota exceeded"}).encode(),
    "torn": CONTENT[:-100],
    "empty": b"",
    "code": saved({"weight": Path}),
    "page": b"<html><title>Quota exceeded</title></html>",
}
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def example(server, monkeypatch):
    """An entry of the registry whose publisher is on this machine."""
    weights = Weights(
        name="example",
        file_name="some/folder/example.pth",
        url=server.url,
        used_for="tests",
        licence="none",
        size=len(CONTENT),
        hash=f"md5:{MD5}",
    )
    monkeypatch.setitem(WEIGHTS, "example", weights)
    return weights


@pytest.fixture
def unpublished(example, monkeypatch):
    """The same without size and hash."""
    weights = dataclasses.replace(example, size=None, hash=None)
    monkeypatch.setitem(WEIGHTS, "example", weights)
    return weights


class TestRegistry:
    def test_the_names_that_others_use(self):
        assert {
            *("ddpm_cifar10", "google_ddpm_cifar10_32", "guided_diffusion_256_uncond"),
            *("score_sde_cifar10", "improved_diffusion_cifar10", "ddpm_celebahq_256"),
            *("edm_cifar10_uncond_vp", "edm_cifar10_cond_vp"),
            *("robustbench_cifar10_standard", "resnet50_imagenet", "inception_fid"),
        } == set(WEIGHTS)
        assert all(name == weights.name for name, weights in WEIGHTS.items())
        assert len({weights.path for weights in WEIGHTS.values()}) == len(WEIGHTS)

    @pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
    def test_entries_are_well_formed(self, weights):
        assert urlsplit(weights.url).scheme == "https"
        assert weights.path.suffix in {".pt", ".pth", ".ckpt", ".safetensors"}
        assert not Path(weights.file_name).is_absolute()
        assert weights.used_for
        assert weights.licence
        if weights.hash is not None:
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", weights.hash)

    def test_addresses_are_those_of_the_libraries(self):
        assert WEIGHTS["inception_fid"].url == pytorch_fid.FID_WEIGHTS_URL
        assert WEIGHTS["resnet50_imagenet"].url == ResNet50_Weights.IMAGENET1K_V1.url

    @pytest.mark.parametrize("name", ["inception_fid", "resnet50_imagenet"])
    def test_pytorchs_names_hold_the_start_of_the_hash(self, name):
        (start,) = re.findall(r"-([0-9a-f]{8})\.pth$", WEIGHTS[name].file_name)
        assert WEIGHTS[name].hash.startswith(f"sha256:{start}")

    def test_sizes_are_those_of_the_tensors_in_them(self):
        """float32, and a little more: names, shapes, what an archive adds."""
        for name, bytes_of_tensors in (
            ("ddpm_cifar10", 4 * 35_746_307),
            ("guided_diffusion_256_uncond", 4 * 552_814_086),
            ("resnet50_imagenet", 4 * (25_557_032 + 53_120) + 8 * 53),
        ):
            assert 0 < WEIGHTS[name].size - bytes_of_tensors < 300_000

    @pytest.mark.parametrize(
        ("name", "close"),
        [
            ("ddpm_cifar", "did you mean ddpm_cifar10"),
            ("resnet50", "did you mean resnet50_imagenet"),
            ("xyz", r"expected ddpm_celebahq_256, ddpm_cifar10, .*, score_sde_cifar10\. See"),
        ],
    )
    def test_unknown_names(self, name, close):
        with pytest.raises(InputError, match=f"no weights '{name}'; {close}") as caught:
            weights_file(name)
        assert "weights list" in str(caught.value)


class TestPlaces:
    def test_the_cache_folder(self, cache, monkeypatch, tmp_path):
        assert cache_folder() == cache
        monkeypatch.setenv(CACHE, "~/weights")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "weights"

    def test_some_are_where_others_look(self, monkeypatch, tmp_path, cache):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        folder = tmp_path / "hub" / "checkpoints"
        shared = {name: w.path.parent for name, w in WEIGHTS.items() if w.shared_with}
        assert shared == {"inception_fid": folder, "resnet50_imagenet": folder}
        robustbench = cache / "robustbench" / "cifar10" / "Linf" / "Standard.pt"
        assert WEIGHTS["robustbench_cifar10_standard"].path == robustbench

    @pytest.mark.parametrize("variable", ["TORCH_HOME", "XDG_CACHE_HOME", None])
    def test_the_folder_of_pytorch_is_known_without_it(self, monkeypatch, tmp_path, variable):
        monkeypatch.setattr(torch.hub, "_hub_dir", None)
        for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        if variable is not None:
            monkeypatch.setenv(variable, str(tmp_path))
        told = WEIGHTS["inception_fid"].path
        monkeypatch.delitem(sys.modules, "torch")
        assert WEIGHTS["inception_fid"].path == told

    @pytest.mark.parametrize("value", [None, ""])
    def test_without_the_variable_it_is_the_users(self, value, monkeypatch, tmp_path):
        monkeypatch.delenv(CACHE)
        if value is not None:
            monkeypatch.setenv(CACHE, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder().name == "lit_purify"


class TestWeightsFile:
    def test_it_is_fetched_once_and_then_here(self, example, server, cache):
        for _ in range(2):
            path = weights_file("example")
            assert path == cache / "some" / "folder" / "example.pth"
            assert path.read_bytes() == CONTENT
        assert server.requests == [None]

    @pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[::-1]])
    def test_a_damaged_one_is_refused_and_replaced_on_demand(self, example, content):
        example.path.parent.mkdir(parents=True)
        example.path.write_bytes(content)
        with pytest.raises(InputError, match=r"damaged or another file .* fetch example'"):
            weights_file("example")
        assert example.path.read_bytes() == content
        assert fetch(example).read_bytes() == CONTENT

    def test_what_cannot_be_fetched_says_which_file_to_put_where(self, example, server):
        server.status = 503
        with pytest.raises(InputError) as caught:
            weights_file("example")
        message = str(caught.value)
        assert "\n" not in message
        for word in (
            "example could not be fetched: 127.0.0.1 answers 503",
            f"save {server.url} ({len(CONTENT):,} bytes, MD5 {MD5}) as {example.path}",
            "lit_purify weights fetch example --from FILE",
        ):
            assert word in message

    def test_a_folder_that_may_not_be_looked_into(self, example, monkeypatch):
        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "is_file", refuse)
        with pytest.raises(InputError, match=r"Permission denied\); choose .* LIT_PURIFY_CACHE"):
            weights_file("example")


class TestPickles:
    """Published with code in them: never downloaded, handed over once they are converted."""

    @pytest.fixture
    def pickle(self, unpublished, monkeypatch):
        weights = dataclasses.replace(unpublished, is_pickle=True)
        monkeypatch.setitem(WEIGHTS, "example", weights)
        return weights

    def test_what_to_do_is_said(self, pickle, server):
        with pytest.raises(InputError) as caught:
            weights_file("example")
        for word in ("pickle", "state_dict", "fetch example --from FILE", str(pickle.path)):
            assert word in str(caught.value)
        assert "\n" not in str(caught.value)
        assert server.requests == []

    def test_a_conversion_is_taken(self, pickle, tmp_path):
        (tmp_path / "converted.pt").write_bytes(CONTENT)
        fetch(pickle, source=str(tmp_path / "converted.pt"))
        assert weights_file("example").read_bytes() == CONTENT

    def test_the_pickle_itself_is_not(self, pickle, tmp_path):
        (tmp_path / "official.pkl").write_bytes(JUNK["code"])
        with pytest.raises(InputError, match="could run code"):
            fetch(pickle, source=str(tmp_path / "official.pkl"))
        assert not pickle.path.exists()


class TestWithoutAPublishedHash:
    def test_the_first_content_is_recorded_and_holds(self, unpublished, server):
        path = weights_file("example")
        record = path.with_name("example.pth.sha256")
        assert record.read_text() == f"{SHA256}  example.pth\n"  # as sha256sum -c reads it
        assert unpublished.known_hash == f"sha256:{SHA256}"
        path.write_bytes(OTHER)
        server.content = OTHER
        for call in (lambda: weights_file("example"), lambda: fetch(unpublished)):
            with pytest.raises(InputError, match=f"{SHA256[:12]}.*{re.escape(str(record))}"):
                call()
        server.content = CONTENT
        assert fetch(unpublished).read_bytes() == CONTENT

    def test_another_file_is_accepted_once_the_record_is_gone(self, unpublished, server):
        weights_file("example").unlink()
        server.content = OTHER
        with pytest.raises(InputError, match="delete it") as caught:
            weights_file("example")
        assert "\n" not in str(caught.value)
        unpublished.record.unlink()
        assert weights_file("example").read_bytes() == OTHER
        assert unpublished.known_hash == f"sha256:{hashlib.sha256(OTHER).hexdigest()}"

    def test_only_a_hash_that_was_recorded_is_said_to_be(self, example, unpublished, server):
        """Neither a published one, nor a network that is away, is laid on the record."""
        weights_file("example").unlink()
        server.content = OTHER
        with pytest.raises(InputError, match="MD5") as published:
            fetch(example)
        server.status = 503
        with pytest.raises(InputError, match="503") as away:
            weights_file("example")
        assert "delete" not in f"{published.value} {away.value}"

    @pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
    @pytest.mark.parametrize("how", ["server", "file", "here", "here, and recorded"])
    def test_what_cannot_be_read_is_neither_kept_nor_recorded(
        self, unpublished, server, tmp_path, junk, how
    ):
        path = unpublished.path
        if how.startswith("here"):
            path.parent.mkdir(parents=True)
            path.write_bytes(junk)
            if "recorded" in how:
                unpublished.record.write_text(f"{hashlib.sha256(junk).hexdigest()}  example.pth\n")
            with pytest.raises(InputError, match="replace it by") as caught:
                weights_file("example")
            assert unpublished.record.exists() == ("recorded" in how)
            unpublished.record.unlink(missing_ok=True)
        else:
            server.content = junk
            (tmp_path / "copy").write_bytes(junk)
            source = None if how == "server" else str(tmp_path / "copy")
            with pytest.raises(InputError, match="nothing of it is kept") as caught:
                fetch(unpublished, source=source)
            assert [file.name for file in path.parent.iterdir()] == [".example.pth.lock"]
        message = str(caught.value)
        assert "cannot be read as weights" in message or "web page" in message
        assert "\n" not in message
        assert str(path) in message
        assert ".part" not in message
        server.content = CONTENT
        assert fetch(unpublished).read_bytes() == CONTENT
        assert unpublished.known_hash == f"sha256:{SHA256}"

    @pytest.mark.parametrize("writable", [True, False])
    def test_a_file_put_there_by_hand_is_recorded_if_it_can_be(
        self, unpublished, monkeypatch, writable
    ):
        unpublished.path.parent.mkdir(parents=True)
        unpublished.path.write_bytes(CONTENT)

        def refuse(*args, **kwargs):
            raise PermissionError

        if not writable:
            monkeypatch.setattr(Path, "write_text", refuse)
        assert weights_file("example") == unpublished.path
        assert unpublished.known_hash == (f"sha256:{SHA256}" if writable else None)


class TestMirrors:
    @pytest.fixture
    def folder(self, tmp_path):
        path = tmp_path / "mirror" / "some" / "folder" / "example.pth"
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        return tmp_path / "mirror"

    @pytest.mark.parametrize("kind", ["folder", "folder/", "file://", "http://"])
    def test_they_have_files_by_their_names(self, example, server, folder, kind, monkeypatch):
        web = server.url.removesuffix("/weights.pth") + "/base"
        mirror = {"file://": folder.as_uri(), "http://": web, "folder/": f"{folder}/"}
        monkeypatch.setenv(MIRROR, mirror.get(kind, str(folder)))
        assert weights_file("example").read_bytes() == CONTENT
        assert server.paths == (["/base/some/folder/example.pth"] if kind == "http://" else [])

    @pytest.mark.parametrize("kind", ["source", "mirror"])
    def test_an_argument_goes_before_the_variable(self, example, folder, monkeypatch, kind):
        monkeypatch.setenv(MIRROR, "/nowhere")
        given = {"source": folder / example.file_name, "mirror": folder}
        assert fetch(example, **{kind: str(given[kind])}).read_bytes() == CONTENT
        assert (folder / example.file_name).exists()

    def test_what_a_mirror_lacks_is_not_taken_elsewhere(self, example, server, monkeypatch):
        monkeypatch.setenv(MIRROR, "/nowhere")
        with pytest.raises(InputError, match=r"from /nowhere/some/.*: there is no"):
            weights_file("example")
        assert server.requests == []


class TestCopiesOfTheUsers:
    def test_verified(self, example, tmp_path):
        path = tmp_path / "mine.pth"
        with pytest.raises(InputError, match=r"no file .*mine\.pth.*put http.*MD5"):
            verified_copy("example", path)
        path.write_bytes(CONTENT)
        assert verified_copy("example", path) == path
        path.write_bytes(b"")
        with pytest.raises(InputError, match=r"another file .*MD5 d41d8cd98f00"):
            verified_copy("example", path)
