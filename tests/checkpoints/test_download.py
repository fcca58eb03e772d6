"""Files that are verified, and downloaded where they are missing: from this disk, by file://."""

import hashlib
import threading

import pytest

from lit_purify.checkpoints.download import verified_file
from lit_purify.types import InputError

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CURE = "put it there yourself"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "server" / "weights.pth"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def get(path, url, sha256=SHA256):
    return verified_file(path, sha256=sha256, url=url, cure=CURE)


def test_what_is_there_is_taken(source):
    assert get(source, None) == source
    assert get(source, "file:///nowhere") == source


def test_what_is_missing_is_downloaded_into_a_new_folder(source, tmp_path):
    target = tmp_path / "a" / "b" / "weights.pth"
    assert get(target, source.as_uri()).read_bytes() == CONTENT
    assert [path.suffix for path in target.parent.iterdir() if path != target] in ([], [".lock"])


def test_several_at_once_end_with_one_whole_file(source, tmp_path):
    target, errors = tmp_path / "weights.pth", []

    def run():
        try:
            get(target, source.as_uri())
        except InputError as error:  # pragma: no cover
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert target.read_bytes() == CONTENT


def test_another_content_is_not_kept(source, tmp_path):
    target = tmp_path / "weights.pth"
    with pytest.raises(InputError, match=r"could not be downloaded .* SHA-256 .*put it there"):
        get(target, source.as_uri(), sha256=64 * "0")
    assert not target.exists()
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_file_is_refused_and_left(source):
    with pytest.raises(InputError, match=r"damaged or another file .*delete it, and put it there"):
        get(source, None, sha256=64 * "0")
    assert source.read_bytes() == CONTENT


@pytest.mark.parametrize("url", [None, "file:///nowhere/weights.pth"])
def test_a_missing_file_is_one_line(tmp_path, url):
    with pytest.raises(InputError, match=r"weights.pth.*put it there yourself") as caught:
        get(tmp_path / "weights.pth", url)
    assert "\n" not in str(caught.value)
