"""The files of a local mesh: a folder is used again after `recoup local down`."""

from __future__ import annotations

from pathlib import Path

from recoup_local.installation import Installation


def test_a_folder_can_be_used_again(tmp_path: Path) -> None:
    """What the earlier mesh knew went with its database; what isn't a mesh's stays."""
    first = Installation(tmp_path)
    (tmp_path / "processes" / "mine.txt").write_text("kept")
    (first.folder("audit-signer") / "signed.1.json").write_text("a later shard")
    (tmp_path / "nats" / "store").mkdir(parents=True)
    (tmp_path / "nats" / "store" / "a job").write_text("of the earlier mesh")
    second = Installation(tmp_path)
    assert second.log.verifier_key != first.log.verifier_key
    assert sorted(file.name for file in second.folder("audit-signer").glob("signed*")) == ["signed.json"]
    assert not (tmp_path / "nats" / "store").exists()
    assert (tmp_path / "processes" / "mine.txt").read_text() == "kept"
